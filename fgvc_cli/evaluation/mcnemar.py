"""Whether one classifier is better than another on the same images, or whether that may be chance."""

from __future__ import annotations

SIGNIFICANT = 0.05
"""From this p-value up, a difference is called within noise."""


def exact_mcnemar(first_only: int, second_only: int) -> float:
    """Return the two-sided p-value of McNemar's exact test (McNemar 1947, Psychometrika 12, 153-157).

    If both classifiers were equally good, an image that only one of them gets right would be either's with equal
    chance: the smaller count is compared with the binomial distribution of n = first_only + second_only and 1/2. The
    exact form holds for any n; without such an image the p-value is 1.

    Args:
        first_only: images that the first gets right and the second wrong.
        second_only: images that the second gets right and the first wrong.
    """
    from scipy.stats import binomtest

    tried = first_only + second_only
    return float(binomtest(first_only, tried).pvalue) if tried else 1.0
