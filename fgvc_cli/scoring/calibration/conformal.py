"""Split-conformal prediction: sets of classes that contain the true one with a chosen probability.

A set has every class whose probability reaches a threshold (least ambiguous set-valued classifier, LAC): of all sets
with that coverage these are the smallest on average, if the probabilities are right.

Reference: Sadinle, Lei, Wasserman 2019, Least Ambiguous Set-Valued Classifiers With Bounded Error Levels, JASA 114;
Vovk, Gammerman, Shafer 2005, Algorithmic Learning in a Random World, section 4.5 (class-conditional: Mondrian).
"""

from __future__ import annotations

import math

import numpy as np


def rank_below(images: int, share: float) -> int:
    """Return j: of that many values, the j-th smallest is at most a new value with a probability of at least `share`.

    The images and the new one are exchangeable; 0 if there are too few of them.
    """
    return math.floor(round((images + 1) * (1 - share), 9))


def images_for_share(share: float) -> int:
    """Return the minimum number of images for a promise on a share of new ones: ceil(1 / (1 - share)) - 1."""
    return math.ceil(round(1 / (1 - share), 9)) - 1


def lower_quantile(values: np.ndarray, share: float) -> float:
    """Return the largest of the values that a new one reaches with a probability of at least `share`.

    Raises:
        ValueError: there are fewer values than `images_for_share`.
    """
    rank = rank_below(len(values), share)
    if not rank:
        raise ValueError(f"{len(values)} values are too few for a share of {share}")
    return float(np.partition(values, rank - 1)[rank - 1])


def set_threshold(probabilities: np.ndarray, labels: np.ndarray, coverage: float) -> float:
    """Return the probability that a class must have to be in the set, for probabilities N,K and labels N.

    P(true class in set) is at least `coverage` for a new image, on average over such images and calibration images.
    """
    return lower_quantile(probabilities[np.arange(len(labels)), labels], coverage)


def class_thresholds(probabilities: np.ndarray, labels: np.ndarray, coverage: float) -> list[float]:
    """Return such a threshold for each of the K classes: the coverage then holds for the images of each class."""
    true, classes = probabilities[np.arange(len(labels)), labels], range(probabilities.shape[1])
    return [lower_quantile(true[labels == label], coverage) for label in classes]
