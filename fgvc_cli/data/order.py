"""Which images make which batch, and the random numbers of each: functions of seed, epoch and index alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple

import numpy as np
import torch

_ORDER, _AUGMENTATION = 1, 2  # keep the two streams of random numbers apart

Sampling = Literal["image", "class", "sqrt"]


class Share(NamedTuple):
    """Which part of an epoch is this process's: process `rank` of `of`."""

    rank: int = 0
    of: int = 1


WHOLE = Share()


class Request(NamedTuple):
    """A batch to load.

    Attributes:
        epoch: for augmentation; None where there is none.
        indices: into the split (int64).
        repeats: how often each image has come up in the epoch before (int64): each time it is augmented anew.
    """

    epoch: int | None
    indices: np.ndarray
    repeats: np.ndarray


class Batch(NamedTuple):
    """What images a batch is made of; see `Request`."""

    indices: np.ndarray
    repeats: np.ndarray


class Requests:
    """The batches that a pass over a split asks for; a DataLoader's sampler. `ask` says what the next pass is."""

    def __init__(self) -> None:
        self._epoch: int | None = None
        self._batches: list[Batch] = []

    def ask(self, batches: list[Batch], epoch: int | None = None) -> None:
        """Set the batches of the next pass."""
        self._epoch, self._batches = epoch, batches

    def __iter__(self) -> Iterator[Request]:
        return (Request(self._epoch, *batch) for batch in self._batches)

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
    """Return how few images a training batch may have: batch normalization cannot train on one."""
    return min(2, batch_size)


def epoch_order(labels: np.ndarray, seed: int, epoch: int, sampling: Sampling = "image") -> np.ndarray:
    """Return the order of an epoch: as many image indices (int64) as there are images.

    With "image" it is a permutation. With "class" every class comes up equally often, with "sqrt" in proportion to
    the square root of its images (class-balanced and square-root sampling, Kang et al. 2020, arXiv 1910.09217,
    section 3.1); then images of small classes come up several times an epoch, and not all of large classes do. Of a
    class none comes up again before every other has.

    Args:
        labels: class indices (int64), one an image.
        seed, epoch: the same give the same order.
        sampling: how often an image comes up.
    """
    rng = np.random.Generator(np.random.PCG64([_ORDER, seed, epoch]))
    if sampling == "image":
        return rng.permutation(len(labels))
    in_class = np.bincount(labels)
    weights = np.where(in_class > 0, 1.0, 0.0) if sampling == "class" else np.sqrt(in_class)
    wanted = _whole_shares(len(labels) * weights / weights.sum(), rng)
    by_class = np.split(np.argsort(labels, kind="stable"), np.cumsum(in_class)[:-1])
    drawn = [_drawn(images, count, rng) for images, count in zip(by_class, wanted, strict=True) if count]
    return rng.permutation(np.concatenate(drawn))


def _whole_shares(shares: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Round shares up or down, by lot, so that their sum stays and each is right on average (systematic sampling)."""
    ends = np.floor(np.cumsum(shares) + rng.random())
    ends[-1] = round(float(shares.sum()))
    return np.diff(ends, prepend=0.0).astype(np.int64)


def _drawn(images: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw images, each as often as the others or once more."""
    rounds = [rng.permutation(images) for _ in range(-(-count // len(images)))]
    return np.concatenate(rounds)[:count]


def repeats_before(order: np.ndarray) -> np.ndarray:
    """Return for each place in an order how often its index stands before it (int64)."""
    by_index = np.argsort(order, kind="stable")
    ordered = order[by_index]
    places = np.arange(len(order))
    starts = np.maximum.accumulate(np.where(np.diff(ordered, prepend=-1) != 0, places, 0))
    repeats = np.empty(len(order), np.int64)
    repeats[by_index] = places - starts
    return repeats


def epoch_batches(
    labels: np.ndarray, batch_size: int, seed: int, epoch: int, share: Share = WHOLE, sampling: Sampling = "image"
) -> list[Batch]:
    """Return the training batches of an epoch in order.

    Of several processes each has its own batches, equally many of equal sizes, and no place in the order is in two.
    What one process would take as a batch of `batch_size` times their number, they take side by side. Of the images
    left for the end of the epoch each takes as many as the others, and those that do not go round are left out.

    Args:
        labels, seed, epoch, sampling: see `epoch_order`.
        batch_size: images in a batch of one process.
        share: which part is this process's.
    """
    order = epoch_order(labels, seed, epoch, sampling)
    groups = split_into_batches(np.arange(len(order)), batch_size * share.of)
    repeats = repeats_before(order) if sampling != "image" else np.zeros(len(order), np.int64)
    places = [_part(group, share) for group in groups[: batches_in_epoch(len(order), batch_size, share.of)]]
    return [Batch(order[part], repeats[part]) for part in places]


def _part(group: np.ndarray, share: Share) -> np.ndarray:
    size = len(group) // share.of
    return group[share.rank * size : (share.rank + 1) * size]


def split_into_batches(indices: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Cut indices into batches, in order; the last one may be smaller."""
    return [indices[start : start + batch_size] for start in range(0, len(indices), batch_size)]


def passing_batches(images: int, batch_size: int) -> list[Batch]:
    """Return the batches of a pass over all images in their own order, each image once."""
    places = split_into_batches(np.arange(images), batch_size)
    return [Batch(part, np.zeros(len(part), np.int64)) for part in places]


def image_seed(seed: int, epoch: int, index: int, repeat: int = 0) -> int:
    """Return the 64-bit seed of one image's augmentation in one epoch, when it has come up `repeat` times before."""
    again = [repeat] if repeat else []
    sequence = np.random.SeedSequence([_AUGMENTATION, seed, epoch, index, *again])
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
