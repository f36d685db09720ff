"""Significance tests between classifiers scored on the same images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from scipy.special import stdtr, stdtrit

from fgvc_cli.scoring.scores import LEVEL, mcnemar

RESAMPLES = 5000
"""Minimum number of bootstrap resamples; see `resamples_of`."""
CHUNK = 4_000_000
"""Random numbers drawn at a time, which bounds the memory."""


@dataclass(frozen=True)
class Difference:
    """Difference in top-1 between two classifiers (or the means over their seeds) on the same images.

    Attributes:
        first, second: indices of the two.
        points: top-1 of the first minus that of the second, a fraction.
        low, high: its 95 % bootstrap interval.
        p: probability of a difference at least as large under the null hypothesis.
        p_corrected: corrected for the number of comparisons.
        method: "mcnemar", "bootstrap" or "corrected t".
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
    def significant(self) -> bool:
        """Whether the corrected p is below `LEVEL`."""
        return self.p_corrected < LEVEL


def resamples_of(seeds: Sequence[int]) -> int:
    """Return the number of bootstrap resamples for classifiers with these numbers of seeds.

    The smallest p of R resamples is about 2 / R. R must be so large that this, corrected for the number of pairs, is
    well below `LEVEL`. With one seed each, no p is computed from resamples.
    """
    pairs = len(seeds) * (len(seeds) - 1) // 2
    return max(RESAMPLES, int(4 * pairs / LEVEL)) if any(number > 1 for number in seeds) else RESAMPLES


def differences(correct: Sequence[np.ndarray], resamples: int | None = None, seed: int = 0) -> list[Difference]:
    """Compare classifiers pairwise.

    Args:
        correct: for each classifier whether the run of each of its S seeds classifies each of the same N images
            correctly, bool [S, N].
        resamples: number of bootstrap resamples; None: `resamples_of`.
        seed: of the bootstrap.
    """
    if not correct or not correct[0].shape[1]:
        return []
    resamples = resamples_of([len(each) for each in correct]) if resamples is None else resamples
    top1 = _resampled_top1(correct, resamples, np.random.default_rng(seed))  # [R, M]
    means = [float(each.mean()) for each in correct]
    found = []
    for i, j in combinations(range(len(correct)), 2):
        spread = top1[:, i] - top1[:, j]
        low, high = np.quantile(spread, (0.025, 0.975))
        if len(correct[i]) == len(correct[j]) == 1:
            method, p = "mcnemar", mcnemar(correct[i][0], correct[j][0])
        else:
            discordant = int((correct[i].mean(axis=0) != correct[j].mean(axis=0)).sum())
            method, p = "bootstrap", _two_sided_p(spread, discordant)
        found.append(Difference(i, j, means[i] - means[j], float(low), float(high), p, p, method))
    corrected = holm([each.p for each in found])
    return [replace(each, p_corrected=p) for each, p in zip(found, corrected, strict=True)]


def fold_interval(scores: Sequence[float], folds: int) -> tuple[float, float]:
    """Return the 95 % interval of the expected score of a method that is trained on all folds but one.

    The training sets of folds overlap, so that their scores are not independent: the variance of the mean over J of K
    folds is estimated by (1 / J + 1 / (K - 1)) times the sample variance, with J - 1 degrees of freedom.

    Reference: Nadeau, Bengio 2003, Inference for the generalization error, Machine Learning 52 (corrected resampled t).

    Args:
        scores: of the J folds, one each, two or more.
        folds: K.
    """
    half = float(_error_over_folds(scores, folds) * stdtrit(len(scores) - 1, 0.975))
    mean = float(np.mean(scores))
    return mean - half, mean + half


def _error_over_folds(scores: Sequence[float], folds: int) -> float:
    return float(np.std(scores, ddof=1) * np.sqrt(1 / len(scores) + 1 / (folds - 1)))


def fold_differences(
    top1: Sequence[Mapping[int, float]], folds: int, correct: Sequence[Mapping[str, float]]
) -> list[Difference]:
    """Compare cross-validated classifiers pairwise by the corrected t test of their differences in each fold.

    Pairs with fewer than two folds in common are left out.

    Reference: Nadeau, Bengio 2003; see `fold_interval`.

    Args:
        top1: for each classifier its top-1, the mean over seeds, by fold.
        folds: number of folds that the images were divided into.
        correct: for each classifier the fraction of seeds that classify an image correctly, by key. No p is below that
            of McNemar's test if all images in which a pair differs favored one classifier.
    """
    found = []
    for i, j in combinations(range(len(top1)), 2):
        common = sorted(top1[i].keys() & top1[j].keys())
        if len(common) < 2:
            continue
        scores = [top1[i][fold] - top1[j][fold] for fold in common]
        mean, error = float(np.mean(scores)), _error_over_folds(scores, folds)
        p = float(2 * stdtr(len(common) - 1, -abs(mean) / error)) if error else float(mean == 0)
        discordant = sum(correct[i][key] != correct[j][key] for key in correct[i].keys() & correct[j].keys())
        p = min(1.0, max(p, 2.0 ** (1 - discordant)))
        found.append(Difference(i, j, mean, *fold_interval(scores, folds), p, p, "corrected t"))
    corrected = holm([each.p for each in found])
    return [replace(each, p_corrected=p) for each, p in zip(found, corrected, strict=True)]


def holm(p: Sequence[float]) -> list[float]:
    """Return p values corrected for their number.

    Reference: Holm 1979, A simple sequentially rejective multiple test procedure.
    """
    order = np.argsort(p, kind="stable")
    corrected = [0.0] * len(p)
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p) - rank) * p[index]))
        corrected[index] = largest
    return corrected


def compact_letters(rows: int, significant: Sequence[tuple[int, int]]) -> list[str]:
    """Return the letters of each row: two rows share one if and only if they do not differ significantly.

    Reference: Piepho 2004, An algorithm for a letter-based representation of all-pairwise comparisons
    (insert and absorb).

    Args:
        rows: number of rows, the best first.
        significant: pairs of rows that differ significantly.
    """
    columns = [frozenset(range(rows))]
    for i, j in significant:
        parts = [
            part for column in columns for part in ((column - {i}, column - {j}) if {i, j} <= column else (column,))
        ]
        columns = [c for c in dict.fromkeys(parts) if not any(c < other for other in parts)]
    ordered = sorted(columns, key=sorted)
    names = ["abcdefghijklmnopqrstuvwxyz"[k % 26] + "'" * (k // 26) for k in range(len(ordered))]
    return ["".join(name for name, column in zip(names, ordered, strict=True) if row in column) for row in range(rows)]


def _resampled_top1(correct: Sequence[np.ndarray], resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Return the top-1 of M classifiers in R resamples of images and seeds: [R, M]."""
    images = correct[0].shape[1]
    runs = np.concatenate(correct).astype(np.float32).T  # [N, S of all classifiers]
    size = max(1, CHUNK // images)
    chunks = [min(size, resamples - start) for start in range(0, resamples, size)]
    of_runs = np.concatenate([_draw_counts(images, chunk, rng) @ runs / images for chunk in chunks])
    top1 = np.empty((resamples, len(correct)))
    start = 0
    for place, each in enumerate(correct):
        # n - 1 draws of n seeds make the bootstrap variance unbiased
        draws = max(1, len(each) - 1)
        own = of_runs[:, start : start + len(each)]
        top1[:, place] = (own * _draw_counts(len(each), resamples, rng, draws)).sum(axis=1)
        top1[:, place] /= draws
        start += len(each)
    return top1


def _draw_counts(items: int, times: int, rng: np.random.Generator, draws: int | None = None) -> np.ndarray:
    """Draw items with replacement, `times` times, and return how often each was drawn: [times, items]."""
    drawn = rng.integers(0, items, (times, draws or items))
    drawn += items * np.arange(times)[:, None]
    return np.bincount(drawn.ravel(), minlength=items * times).reshape(times, items).astype(np.float32)


def _two_sided_p(spread: np.ndarray, discordant: int) -> float:
    """Return the p of a difference from R bootstrap resamples of it: twice the frequency of the other sign.

    It is at least the p of McNemar's test if all discordant images favored one classifier.
    """
    below, above = int((spread <= 0).sum()), int((spread >= 0).sum())
    p = 2 * (min(below, above) + 1) / (len(spread) + 1)
    return float(min(1.0, max(p, 2.0 ** (1 - discordant))))
