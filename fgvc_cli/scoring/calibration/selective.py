"""Answer only where the precision is high enough: the coverage-precision curve, and a threshold with a guarantee."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SHARES = (1.0, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
"""Shares of the images in the table of a curve."""


@dataclass(frozen=True)
class OperatingPoint:
    """The answers at a threshold.

    Attributes:
        threshold: an image is answered if its probability is above this.
        answered: fraction of the images.
        precision: fraction of the answers that are right.
        lower: 95 % lower confidence bound of the precision (Clopper-Pearson), for this threshold alone.
    """

    threshold: float
    answered: float
    precision: float
    lower: float


def coverage_curve(confidence: np.ndarray, correct: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the fraction of images answered and the precision of the answers, for each number of answers from 1 to N.

    Args:
        confidence: N, the probability of the predicted class; the most confident images are answered first.
        correct: bool N.
    """
    order, counts = np.argsort(-confidence, kind="stable"), np.arange(1, len(confidence) + 1)
    return counts / len(counts), np.cumsum(correct[order]) / counts


def operating_points(
    confidence: np.ndarray, correct: np.ndarray, shares: Sequence[float] = SHARES
) -> list[OperatingPoint]:
    """Return the answers at thresholds that leave about these shares of the images, without repetition."""
    points = {}
    for share in shares:
        threshold = _threshold_above(np.sort(confidence)[::-1], max(1, round(share * len(confidence))))
        if (confidence > threshold).any():
            points[threshold] = operating_point(confidence, correct, threshold)
    return list(points.values())


def operating_point(confidence: np.ndarray, correct: np.ndarray, threshold: float) -> OperatingPoint:
    """Return the answers at a threshold, which answers at least one image."""
    from scipy.stats import beta  # slow to import, and a prediction does not need it

    answered = confidence > threshold
    right, total = int(correct[answered].sum()), int(answered.sum())
    lower = float(beta.ppf(0.05, right, total - right + 1)) if right else 0.0
    return OperatingPoint(threshold, total / len(confidence), right / total, lower)


def images_for_precision(precision: float, confidence_level: float) -> int:
    """Return the minimum number of answered images that can prove a precision: that many, all of them right."""
    return math.ceil(round(math.log(1 - confidence_level) / math.log(precision), 9))


def first_test(images: int, precision: float, confidence_level: float) -> int:
    """Return the number of answers of the first threshold to test: a quarter of the images, or more if that is too few.

    A start at the minimum would fail with one mistake among the most confident images.
    """
    return max(images_for_precision(precision, confidence_level), images // 4)


def certified_threshold(
    confidence: np.ndarray, correct: np.ndarray, precision: float, confidence_level: float
) -> float | None:
    """Return the lowest threshold whose answers are proven to have a precision.

    With a probability of at least `confidence_level` over the draw of the N images, the fraction of right answers among
    all images with a probability above the threshold exceeds `precision`. Thresholds are tested one after the other,
    from `first_test` answers to N, each by an exact binomial test at the level 1 - `confidence_level`; the last one
    before the first that fails is returned. Testing in a fixed order needs no correction for the number of tests. Only
    the images strictly above a threshold are counted, because it is the probability of the next image: given that, they
    are independent draws of images above it. The guarantee supposes that precision grows with the threshold.

    Args:
        confidence: N, the probability of the predicted class.
        correct: bool N.
        precision: to exceed, in (0, 1).
        confidence_level: in (0, 1).

    Returns:
        The threshold; None if none is proven.

    Reference: Angelopoulos, Bates, Candès, Jordan, Lei 2021, Learn then Test, arXiv 2110.01052 (fixed-sequence tests);
    Geifman, El-Yaniv 2017, Selective Classification for Deep Neural Networks.
    """
    from scipy.stats import binom

    order = np.argsort(-confidence, kind="stable")
    descending, right = confidence[order], np.cumsum(correct[order])
    answers = np.arange(first_test(len(confidence), precision, confidence_level), len(confidence) + 1)
    passed = binom.cdf(answers - right[answers - 1], answers, 1 - precision) <= 1 - confidence_level
    found = None
    for count, proven in zip(answers.tolist(), passed.tolist(), strict=True):
        threshold = _threshold_above(descending, count)
        if threshold >= descending[count - 1]:  # the next image has the same probability
            continue
        if not proven:
            break
        found = threshold
    return found


def _threshold_above(descending: np.ndarray, answers: int) -> float:
    """Return the threshold above which that many images are, or fewer with ties; 0 for all."""
    return float(descending[answers]) if answers < len(descending) else 0.0
