"""Which classes are taken for which, and the mistakes a classifier is surest of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fgvc_cli.evaluation.scoring import Scores


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
