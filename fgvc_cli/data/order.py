"""Which images make which batch, and the random numbers of each: functions of seed, epoch and index alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch

_ORDER, _AUGMENTATION = 1, 2  # keep the two streams of random numbers apart


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


def batches_in_epoch(images: int, batch_size: int) -> int:
    """Count the training batches of an epoch; a last batch of one image is dropped, if others are larger."""
    full, rest = divmod(images, batch_size)
    return full + (rest >= least_images(batch_size))


def least_images(batch_size: int) -> int:
    """Return how few images a training batch may have: batch normalisation cannot train on one."""
    return min(2, batch_size)


def epoch_order(images: int, seed: int, epoch: int) -> np.ndarray:
    """Return the order of an epoch: a permutation (int64) of the image indices."""
    return np.random.Generator(np.random.PCG64([_ORDER, seed, epoch])).permutation(images)


def epoch_batches(images: int, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Return the training batches of an epoch in order, each an array of image indices."""
    order = epoch_order(images, seed, epoch)
    return split_into_batches(order, batch_size)[: batches_in_epoch(images, batch_size)]


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
