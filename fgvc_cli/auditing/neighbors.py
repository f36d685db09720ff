"""Nearest neighbors by cosine similarity, in blocks: memory does not grow with the square of the number of images."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

BLOCK_VALUES = 1 << 24
"""Similarities in memory at a time: 64 MiB."""


class Neighbors(NamedTuple):
    """The nearest neighbors of N vectors among M others, nearest first.

    Attributes:
        similarities: float32 N,k.
        indices: int64 N,k, into the others.
    """

    similarities: np.ndarray
    indices: np.ndarray


def unit_vectors(values: np.ndarray) -> np.ndarray:
    """Scale vectors N,D to length 1; zero vectors stay zero."""
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    return values / np.where(norms > 0, norms, 1)


def nearest(queries: np.ndarray, others: np.ndarray, k: int, skip: np.ndarray | None = None) -> Neighbors:
    """Return the k nearest of the unit vectors M,D for each of the unit vectors N,D; fewer if M is smaller.

    `skip` is int64 N: the index in `others` of the query itself, which is no neighbor, or -1.
    """
    k = min(k, len(others))
    similarities, indices = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
    keys, rows = torch.from_numpy(np.ascontiguousarray(others)).T, max(1, BLOCK_VALUES // max(1, len(others)))
    for start in range(0, len(queries), rows):
        block = torch.from_numpy(np.ascontiguousarray(queries[start : start + rows])) @ keys
        if skip is not None:
            own = torch.from_numpy(skip[start : start + rows])
            block[own >= 0, own[own >= 0]] = -torch.inf
        best = block.topk(k, dim=1)
        similarities[start : start + rows], indices[start : start + rows] = best.values, best.indices
    return Neighbors(similarities, indices)
