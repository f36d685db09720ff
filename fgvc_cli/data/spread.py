"""Some of many images, evenly apart: the same ones each time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def spread(labels: Sequence[int], limit: int) -> list[int]:
    """Choose `limit` images, or all if there are no more: the same ones each time, in ascending order.

    Each class gives equally many, as far as it has them; where that does not come out even, classes that lie evenly
    among the others give one more. Within a class the images lie evenly in the split's order.
    """
    if limit >= len(labels):
        return list(range(len(labels)))
    of_class = [np.flatnonzero(np.asarray(labels) == label) for label in sorted(set(labels))]
    quotas = _quotas([len(images) for images in of_class], limit)
    chosen = [images[_evenly(len(images), quota)] for images, quota in zip(of_class, quotas, strict=True) if quota]
    return sorted(int(i) for i in np.concatenate(chosen))


def _quotas(counts: Sequence[int], limit: int) -> list[int]:
    """Share a limit out among classes that have so many images: level by level, as water fills."""
    level = 0
    while sum(min(count, level + 1) for count in counts) <= limit:
        level += 1
    quotas = [min(count, level) for count in counts]
    with_more = [i for i, count in enumerate(counts) if count > level]
    for i in _evenly(len(with_more), limit - sum(quotas)):
        quotas[with_more[i]] += 1
    return quotas


def _evenly(count: int, wanted: int) -> np.ndarray:
    """Return `wanted` of `count` positions, evenly apart, as far from the ends as from half of one another."""
    return ((np.arange(wanted) + 0.5) * count / max(wanted, 1)).astype(np.int64)
