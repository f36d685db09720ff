"""Metrics of a classifier on a split: per image, over the whole split."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from fgvc_cli.runs.results import Averages, ClassMetrics, SplitMetrics
from fgvc_cli.scoring.scores import Scores

BINS = 15


def expected_calibration_error(scores: Scores, bins: int = BINS) -> float:
    """Compute the expected calibration error, in [0, 1].

    Images are binned by the probability of the predicted class into (0, 1/bins], (1/bins, 2/bins], ...; the distance
    between mean confidence and accuracy of a bin is weighted by its number of images. Images whose probabilities are
    not finite are ignored. Without images it is 0.

    Reference: Guo et al. 2017, On Calibration of Modern Neural Networks, section 2, equation 3.
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
    """Return the number of images of class i (row) predicted as class j (column): int64 K,K."""
    classes = scores.classes
    scored = scores.predicted >= 0
    codes = scores.labels[scored] * classes + scores.predicted[scored]
    return np.bincount(codes, minlength=classes * classes).reshape(classes, classes)


def split_metrics(scores: Scores, class_names: Sequence[str]) -> SplitMetrics:
    """Compute the metrics of a split."""
    per_class = class_metrics(scores, class_names)
    present = [row for row in per_class if row.images]
    images = len(scores)
    correct = scores.predicted == scores.labels
    return SplitMetrics(
        images=images,
        failed=len(scores.failures),
        not_finite=int((scores.predicted < 0).sum()),
        classes=scores.classes,
        classes_present=len(present),
        top1=float(correct.mean()) if images else None,
        top5=float((scores.ranks < 5).mean()) if images and scores.classes > 5 else None,
        loss=scores.loss if math.isfinite(scores.loss) else None,
        macro=_average(present, [1] * len(present)),
        weighted=_average(present, [row.images for row in present]),
        calibration_error=expected_calibration_error(scores) if images else None,
        chance={
            "uniform": 1 / scores.classes,
            "majority": max(row.images for row in present) / images if images else None,
        },
        per_class=per_class,
    )


def class_metrics(scores: Scores, class_names: Sequence[str]) -> list[ClassMetrics]:
    """Compute the metrics of every class, in the classifier's order."""
    from sklearn.metrics import precision_recall_fscore_support

    if not len(scores):
        return [ClassMetrics(name, 0) for name in class_names]
    images = np.bincount(scores.labels, minlength=scores.classes)
    columns = precision_recall_fscore_support(
        scores.labels, scores.predicted, labels=np.arange(scores.classes), average=None, zero_division=0.0
    )
    precision, recall, f1 = (column.tolist() for column in columns[:3])
    return [
        ClassMetrics(name, int(images[i]), precision[i], recall[i], f1[i], recall[i])
        if images[i]
        else ClassMetrics(name, 0)
        for i, name in enumerate(class_names)
    ]


def _average(rows: Sequence[ClassMetrics], weights: Sequence[int]) -> Averages:
    if not rows:
        return Averages()
    table = np.array([(row.precision, row.recall, row.f1) for row in rows], dtype=float)
    return Averages(*(float(np.average(column, weights=weights)) for column in table.T))


LEVEL = 0.05
"""Significance level of corrected p-values."""


def mcnemar(first: np.ndarray, second: np.ndarray) -> float:
    """Return the two-sided p-value of McNemar's exact test.

    Args:
        first, second: bool N, whether two classifiers are correct on each of the same images.
    """
    from scipy.stats import binomtest

    alone = int((first & ~second).sum()), int((second & ~first).sum())
    return float(binomtest(alone[0], sum(alone)).pvalue) if sum(alone) else 1.0
