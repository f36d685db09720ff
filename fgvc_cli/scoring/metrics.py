"""Metrics of a classifier on a split: per image, over the whole split."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from fgvc_cli.scoring.scores import Scores

BINS = 15


def expected_calibration_error(scores: Scores, bins: int = BINS) -> float:
    """Return the mean distance between confidence and accuracy, in [0, 1], over bins of confidence of equal width.

    Images fall into the bins (0, 1/bins], (1/bins, 2/bins], ... by the probability of the predicted class; the bins
    are weighted by their images (Guo et al. 2017, On Calibration of Modern Neural Networks, section 2, equation 3).
    Images whose probabilities are not finite are left out. No image gives 0.
    """
    finite = scores.predicted >= 0
    confidence = scores.confidence[finite].astype(np.float64)
    correct = (scores.predicted == scores.labels)[finite]
    if not len(confidence):
        return 0.0
    bin_of = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    distance = np.bincount(bin_of, weights=correct - confidence, minlength=bins)
    return float(np.abs(distance).sum() / len(confidence))


def confusion_matrix(scores: Scores) -> np.ndarray:
    """Return how many images of class i (row) were taken for class j (column): int64 K,K."""
    classes = scores.classes
    scored = scores.predicted >= 0
    codes = scores.labels[scored] * classes + scores.predicted[scored]
    return np.bincount(codes, minlength=classes * classes).reshape(classes, classes)


def most_confused(scores: Scores, class_names: Sequence[str], n: int = 10) -> list[dict[str, Any]]:
    """Return the n pairs of classes with the most mistakes, most first, at equal numbers the larger share first.

    Each is {"true", "predicted", "images", "share"}; share is of the images of the true class, in [0, 1].
    """
    classes = scores.classes
    wrong = (scores.predicted >= 0) & (scores.predicted != scores.labels)
    # Only pairs that occur: a dense matrix of ten thousand classes would take 800 MB.
    codes, counts = np.unique(scores.labels[wrong] * classes + scores.predicted[wrong], return_counts=True)
    shares = counts / np.bincount(scores.labels, minlength=classes)[codes // classes]
    order = np.lexsort((codes, -shares, -counts))[:n]
    return [
        {
            "true": class_names[codes[i] // classes],
            "predicted": class_names[codes[i] % classes],
            "images": int(counts[i]),
            "share": float(shares[i]),
        }
        for i in order
    ]


def most_confident_mistakes(scores: Scores, class_names: Sequence[str], n: int = 10) -> list[dict[str, Any]]:
    """Return the n wrongly classified images with the most probable prediction, most probable first.

    Each is {"key", "true", "predicted", "probability", "probability_true"}.
    """
    wrong = np.flatnonzero((scores.predicted >= 0) & (scores.predicted != scores.labels))
    order = wrong[np.argsort(-scores.confidence[wrong], kind="stable")][:n]
    return [
        {
            "key": scores.keys[i],
            "true": class_names[scores.labels[i]],
            "predicted": class_names[scores.predicted[i]],
            "probability": float(scores.confidence[i]),
            "probability_true": float(scores.probabilities[i, scores.labels[i]]),
        }
        for i in order
    ]


__all__ = ["figures", "most_confident_mistakes", "most_confused", "per_class"]


def figures(scores: Scores, class_names: Sequence[str]) -> dict[str, Any]:
    """Return what `summary.json` says of a split; all shares are fractions in [0, 1], all values fit into JSON.

    - images, failed: how many were scored, and how many could not be read (they enter no figure).
    - not_finite: images whose scores were not finite; they count as wrong.
    - classes: K, the classes that the classifier knows; classes_present: how many the split has images of.
    - top1, top5: share of images whose true class is the most probable, among the five most probable. Without more
      than five classes top-5 says nothing and is None.
    - loss: mean cross entropy in nats; None if it is not finite.
    - macro, weighted: {"precision", "recall", "f1"}, averaged over the classes that the split has images of: equally,
      and by their number of images. A class absent from the split enters neither average (though images wrongly
      taken for it count against their own class), and a class that is never predicted has a precision of 0.
    - calibration_error: expected calibration error, 15 bins.
    - chance: {"uniform": 1 / K, "majority": share of the split's most frequent class}.
    - per_class: see `per_class`.

    Figures of a split without a scored image are None.
    """
    rows = per_class(scores, class_names)
    present = [row for row in rows if row["images"]]
    images = len(scores)
    correct = scores.predicted == scores.labels
    top5 = float((scores.ranks < 5).mean()) if images and scores.classes > 5 else None
    return {
        "images": images,
        "failed": len(scores.failures),
        "not_finite": int((scores.predicted < 0).sum()),
        "classes": scores.classes,
        "classes_present": len(present),
        "top1": float(correct.mean()) if images else None,
        "top5": top5,
        "loss": scores.loss if math.isfinite(scores.loss) else None,
        "macro": _average(present, [1] * len(present)),
        "weighted": _average(present, [row["images"] for row in present]),
        "calibration_error": expected_calibration_error(scores) if images else None,
        "chance": {
            "uniform": 1 / scores.classes,
            "majority": max(row["images"] for row in present) / images if images else None,
        },
        "per_class": rows,
    }


def per_class(scores: Scores, class_names: Sequence[str]) -> list[dict[str, Any]]:
    """Return {"class", "images", "precision", "recall", "f1", "top1"} for every class, in the classifier's order.

    `top1` is the share of the class's images that were classified rightly, which is its recall. Recall, F1 and top1
    of a class without images are None, and so is its precision.
    """
    from sklearn.metrics import precision_recall_fscore_support

    labels = np.arange(scores.classes)
    if len(scores):
        precision, recall, f1, _ = precision_recall_fscore_support(
            scores.labels, scores.predicted, labels=labels, average=None, zero_division=0.0
        )
    else:
        precision = recall = f1 = np.zeros(scores.classes)
    images = np.bincount(scores.labels, minlength=scores.classes)
    rows: list[dict[str, Any]] = []
    for i, name in enumerate(class_names):
        values = (float(precision[i]), float(recall[i]), float(f1[i])) if images[i] else (None, None, None)
        figures_of = dict(zip(("precision", "recall", "f1"), values, strict=True))
        rows.append({"class": name, "images": int(images[i]), **figures_of, "top1": values[1]})
    return rows


def _average(rows: Sequence[dict[str, Any]], weights: Sequence[int]) -> dict[str, float | None]:
    names = ("precision", "recall", "f1")
    if not rows:
        return dict.fromkeys(names)
    return {name: float(np.average([row[name] for row in rows], weights=weights)) for name in names}


LEVEL = 0.05
"""A difference whose p, corrected, is below it is more than noise."""


def mcnemar(first: np.ndarray, second: np.ndarray) -> float:
    """Return p of McNemar's exact test, two-sided.

    Args:
        first, second: bool N, whether two classifiers have each of the same images right.
    """
    from scipy.stats import binomtest

    alone = int((first & ~second).sum()), int((second & ~first).sum())
    return float(binomtest(alone[0], sum(alone)).pvalue) if sum(alone) else 1.0
