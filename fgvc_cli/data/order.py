"""Which images make which batch, and the random numbers of each: functions of seed, epoch and index alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch

_ORDER, _AUGMENTATION = 1, 2  # keep the two streams of random numbers apart


class Share(NamedTuple):
    """Which part of an epoch is this process's: process `rank` of `of`."""

    rank: int = 0
    of: int = 1


WHOLE = Share()


class Request(NamedTuple):
    """A batch to load: `indices` (int64) into the split; `epoch` for augmentation, None where there is none."""

    epoch: int | None
    indices: np.ndarray


class Requests:
    """The batches that a pass over a split asks for; a DataLoader's sampler. `ask` says what the next pass is."""

    def __init__(self) -> None:
        self._epoch: int | None = None
        self._batches: list[np.ndarray] = []

    def ask(self, batches: list[np.ndarray], epoch: int | None = None) -> None:
        """Set the batches of the next pass."""
        self._epoch, self._batches = epoch, batches

    def __iter__(self) -> Iterator[Request]:
        return (Request(self._epoch, indices) for indices in self._batches)

    def __len__(self) -> int:
        return len(self._batches)


def batches_in_epoch(images: int, batch_size: int, processes: int = 1) -> int:
    """Count an epoch's training batches of each process; a last one of one image is dropped, if others are larger.

    Args:
        images: in the split.
        batch_size: images in a batch of one process.
        processes: that share the images.
    """
    full, rest = divmod(images, batch_size * processes)
    return full + (rest // processes >= least_images(batch_size))


def least_images(batch_size: int) -> int:
    """Return how few images a training batch may have: batch normalisation cannot train on one."""
    return min(2, batch_size)


def epoch_order(images: int, seed: int, epoch: int) -> np.ndarray:
    """Return the order of an epoch: a permutation (int64) of the image indices."""
    return np.random.Generator(np.random.PCG64([_ORDER, seed, epoch])).permutation(images)


def epoch_batches(images: int, batch_size: int, seed: int, epoch: int, share: Share = WHOLE) -> list[np.ndarray]:
    """Return the training batches of an epoch in order, each an array of image indices.

    Of several processes each has its own batches, equally many of equal sizes, and no image is in two. What one
    process would take as a batch of `batch_size` times their number, they take side by side. Of the images left for
    the end of the epoch each takes as many as the others, and those that do not go round are left out.
    """
    order = epoch_order(images, seed, epoch)
    groups = split_into_batches(order, batch_size * share.of)[: batches_in_epoch(images, batch_size, share.of)]
    return [_part(group, share) for group in groups]


def _part(group: np.ndarray, share: Share) -> np.ndarray:
    size = len(group) // share.of
    return group[share.rank * size : (share.rank + 1) * size]


def split_into_batches(indices: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Cut indices into batches, in order; the last one may be smaller."""
    return [indices[start : start + batch_size] for start in range(0, len(indices), batch_size)]


def image_seed(seed: int, epoch: int, index: int) -> int:
    """Return the 64-bit seed of one image's augmentation in one epoch."""
    sequence = np.random.SeedSequence([_AUGMENTATION, seed, epoch, index])
    return int(sequence.generate_state(1, np.uint64)[0])


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's generator of the CPU, and set it back afterwards: dropout in this process notices nothing.

    `torch.manual_seed` would seed the devices as well.
    """
    generator = torch.default_generator
    state = generator.get_state()
    generator.manual_seed(seed)
    try:
        yield
    finally:
        generator.set_state(state)
