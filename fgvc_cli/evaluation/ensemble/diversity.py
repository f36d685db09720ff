"""How complementary the mistakes of several classifiers are.

The measures of a pair, and their names, are those of Kuncheva and Whitaker (2003), Measures of Diversity in Classifier
Ensembles and Their Relationship with the Ensemble Accuracy, Machine Learning 51, 181-207, section 2.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fgvc_cli.evaluation.scoring import Scores


def pair_figures(first: Scores, second: Scores) -> dict[str, Any]:
    """Return how two classifiers' mistakes go together; all but `q` are shares of the images, in [0, 1].

    - both_right; first_only, second_only: right where the other is wrong.
    - one_right: exactly one is right, the disagreement measure: the larger, the more there is to gain.
    - both_wrong: the double-fault measure: what no choice between the two can mend.
    - both_wrong_same_class: both wrong with the same class, where averaging only makes the mistake surer.
    - different_predictions: another class is predicted, right or wrong.
    - q: Yule's Q statistic, (both_right * both_wrong - first_only * second_only) over the sum of the two products, in
      [-1, 1]: 0 for classifiers that fail independently, 1 where one's mistakes hold all of the other's, below 0 where
      they fail on different images. None where both products are 0.

    Args:
        first, second: of the same N images in the same order, N at least 1. What is not finite counts as wrong, and as
            another class than any.
    """
    first_right, second_right = first.predicted == first.labels, second.predicted == second.labels
    same = (first.predicted == second.predicted) & (first.predicted >= 0)
    both_right, both_wrong = first_right & second_right, ~first_right & ~second_right
    first_only, second_only = first_right & ~second_right, second_right & ~first_right
    return {
        "both_right": _share(both_right),
        "first_only": _share(first_only),
        "second_only": _share(second_only),
        "one_right": _share(first_right != second_right),
        "both_wrong": _share(both_wrong),
        "both_wrong_same_class": _share(both_wrong & same),
        "different_predictions": _share(~same),
        "q": yules_q(*(int(which.sum()) for which in (both_right, both_wrong, first_only, second_only))),
    }


def yules_q(both_right: int, both_wrong: int, first_only: int, second_only: int) -> float | None:
    """Return Yule's Q statistic of numbers of images; None where it is not defined."""
    together, apart = both_right * both_wrong, first_only * second_only
    return (together - apart) / (together + apart) if together + apart else None


def together(members: Sequence[Scores]) -> dict[str, Any]:
    """Return what the members get right between them.

    - any_right: share of the images that at least one gets right, the oracle: what a perfect choice among the members
      would reach.
    - all_right: share that every one gets right.
    - images_by_right: how many images exactly 0, 1, ... all members get right.
    """
    right = np.sum([member.predicted == member.labels for member in members], axis=0)
    counts = np.bincount(right, minlength=len(members) + 1)
    return {
        "any_right": float((right > 0).mean()),
        "all_right": float((right == len(members)).mean()),
        "images_by_right": counts.tolist(),
    }


def _share(which: np.ndarray) -> float:
    return float(which.mean())
