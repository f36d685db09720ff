"""Significance tests between classifiers scored on the same images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from fgvc_cli.scoring.metrics import LEVEL, mcnemar

RESAMPLES = 5000
"""Of the bootstrap, at least; see `resamples_of`."""
CHUNK = 4_000_000
"""Numbers that are drawn at once."""


@dataclass(frozen=True)
class Difference:
    """How far a classifier (or the mean over its seeds) is ahead of another one on the same images.

    Attributes:
        first, second: places of the two in what was compared.
        points: top-1 of the first less that of the second, a fraction.
        low, high: 95 % bootstrap interval of it.
        p: of so large a difference where there is none.
        p_corrected: for the number of comparisons.
        method: "mcnemar" or "bootstrap".
    """

    first: int
    second: int
    points: float
    low: float
    high: float
    p: float
    p_corrected: float
    method: str

    @property
    def clear(self) -> bool:
        """Whether it is more than noise."""
        return self.p_corrected < LEVEL


def resamples_of(seeds: Sequence[int]) -> int:
    """Return how many resamples classifiers with so many seeds each are compared by.

    The least p of R resamples is about 2 / R: R must be large enough that this, corrected for the number of pairs, is
    still well below `LEVEL`. With one seed each p comes from no resample.
    """
    pairs = len(seeds) * (len(seeds) - 1) // 2
    return max(RESAMPLES, int(4 * pairs / LEVEL)) if any(number > 1 for number in seeds) else RESAMPLES


def differences(correct: Sequence[np.ndarray], resamples: int | None = None, seed: int = 0) -> list[Difference]:
    """Compare classifiers pair by pair.

    Args:
        correct: of each classifier, bool S,N: whether its run with each of S seeds has each of the same N images right.
        resamples: of the bootstrap; None: `resamples_of`.
        seed: of what it draws.

    Returns:
        One for each pair (i, j), i < j. Without images, none.
    """
    if not correct or not correct[0].shape[1]:
        return []
    resamples = resamples_of([len(each) for each in correct]) if resamples is None else resamples
    drawn = _resampled(correct, resamples, np.random.default_rng(seed))  # R,M
    means = [float(each.mean()) for each in correct]
    found = []
    for i, j in combinations(range(len(correct)), 2):
        spread = drawn[:, i] - drawn[:, j]
        low, high = np.quantile(spread, (0.025, 0.975))
        single = len(correct[i]) == len(correct[j]) == 1
        p = mcnemar(correct[i][0], correct[j][0]) if single else _two_sided(spread, _telling(correct[i], correct[j]))
        method = "mcnemar" if single else "bootstrap"
        found.append(Difference(i, j, means[i] - means[j], float(low), float(high), p, p, method))
    corrected = holm([each.p for each in found])
    return [replace(each, p_corrected=p) for each, p in zip(found, corrected, strict=True)]


def holm(p: Sequence[float]) -> list[float]:
    """Return p corrected for their number by Holm's step-down method."""
    order = np.argsort(p, kind="stable")
    corrected = [0.0] * len(p)
    least = 0.0
    for place, index in enumerate(order):
        least = max(least, min(1.0, (len(p) - place) * p[index]))
        corrected[index] = least
    return corrected


def letters(count: int, clear: Sequence[tuple[int, int]]) -> list[str]:
    """Give each of so many rows letters, so that two rows share one if and only if they do not clearly differ.

    Piepho 2004 (Journal of Computational and Graphical Statistics 13): insert and absorb.

    Args:
        count: of the rows, the best first.
        clear: the pairs of rows that do clearly differ.
    """
    columns = [frozenset(range(count))]
    for i, j in clear:
        split = [part for column in columns for part in _parted(column, i, j)]
        columns = [c for c in dict.fromkeys(split) if not any(c < other for other in split)]
    ordered = sorted(columns, key=sorted)
    return ["".join(_letter(k) for k, column in enumerate(ordered) if row in column) for row in range(count)]


def _parted(column: frozenset[int], i: int, j: int) -> list[frozenset[int]]:
    return [column - {i}, column - {j}] if {i, j} <= column else [column]


def _letter(number: int) -> str:
    return "abcdefghijklmnopqrstuvwxyz"[number % 26] + "'" * (number // 26)


def _resampled(correct: Sequence[np.ndarray], resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Return the top-1 of M classifiers in R resamples of images and seeds: R,M."""
    images = correct[0].shape[1]
    every = np.concatenate(correct).astype(np.float32).T  # N,S of all classifiers
    of_runs = np.concatenate(
        [_shares(images, part, rng) @ every / images for part in _parts(resamples, max(1, CHUNK // images))]
    )
    found = np.empty((resamples, len(correct)))
    start = 0
    for place, each in enumerate(correct):
        runs = of_runs[:, start : start + len(each)]
        found[:, place] = (runs * _shares(len(each), resamples, rng, max(1, len(each) - 1))).sum(axis=1)
        found[:, place] /= max(1, len(each) - 1)
        start += len(each)
    return found


def _shares(of: int, times: int, rng: np.random.Generator, draws: int | None = None) -> np.ndarray:
    """Draw so many times, with replacement, and return how often each was drawn: times,of."""
    drawn = rng.integers(0, of, (times, draws or of))
    drawn += of * np.arange(times)[:, None]
    return np.bincount(drawn.ravel(), minlength=of * times).reshape(times, of).astype(np.float32)


def _parts(total: int, size: int) -> list[int]:
    return [min(size, total - start) for start in range(0, total, size)]


def _telling(first: np.ndarray, second: np.ndarray) -> int:
    """Return the number of images that two classifiers, bool S,N and T,N, do not have right equally often."""
    return int((first.mean(axis=0) != second.mean(axis=0)).sum())


def _two_sided(spread: np.ndarray, telling: int) -> float:
    """Return p of a difference from its bootstrap distribution: how often it has the other sign, twice.

    Args:
        spread: the difference in each of R resamples.
        telling: images that tell the two apart.
    """
    below, above = int((spread <= 0).sum()), int((spread >= 0).sum())
    p = 2 * (min(below, above) + 1) / (len(spread) + 1)
    return float(min(1.0, max(p, 2.0 ** (1 - telling))))
