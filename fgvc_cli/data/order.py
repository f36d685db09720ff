"""Batch order and random seeds, as functions of seed, epoch and image index alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple

import numpy as np
import torch

_ORDER, _AUGMENTATION = 1, 2  # separate the two random streams

Sampling = Literal["image", "class", "sqrt"]


class Shard(NamedTuple):
    """The part of an epoch that one of several processes loads."""

    rank: int = 0
    world_size: int = 1


WHOLE = Shard()


class Batch(NamedTuple):
    """The images of a batch.

    Attributes:
        indices: into the split (int64).
        repeats: number of times that each image has already occurred in the epoch (int64); each occurrence gets its
            own augmentation.
    """

    indices: np.ndarray
    repeats: np.ndarray


class BatchRequest(NamedTuple):
    """A batch to load, see `Batch`; `epoch` seeds the augmentation, None loads without augmentation."""

    epoch: int | None
    indices: np.ndarray
    repeats: np.ndarray


class RequestSampler:
    """Sampler of a DataLoader that yields the batches set by `set_batches`."""

    def __init__(self) -> None:
        self._epoch: int | None = None
        self._batches: list[Batch] = []

    def set_batches(self, batches: list[Batch], epoch: int | None = None) -> None:
        """Set the batches of the next pass."""
        self._epoch, self._batches = epoch, batches

    def skip(self, batches: int) -> None:
        """Drop batches at the beginning, which are done."""
        self._batches = self._batches[batches:]

    def __iter__(self) -> Iterator[BatchRequest]:
        return (BatchRequest(self._epoch, *batch) for batch in self._batches)

    def __len__(self) -> int:
        return len(self._batches)


def min_batch_size(batch_size: int) -> int:
    """Return the minimum number of images in a training batch: batch normalization cannot train on one."""
    return min(2, batch_size)


def batches_in_epoch(images: int, batch_size: int, processes: int = 1) -> int:
    """Count the training batches per process, of `batch_size` each; a last one below `min_batch_size` is dropped."""
    full, rest = divmod(images, batch_size * processes)
    return full + (rest // processes >= min_batch_size(batch_size))


def epoch_order(labels: np.ndarray, seed: int, epoch: int, sampling: Sampling = "image") -> np.ndarray:
    """Return the order of an epoch: as many image indices (int64) as there are images.

    "image" gives a permutation. "class" draws every class equally often, "sqrt" in proportion to the square root of
    its number of images (class-balanced and square-root sampling). Images of small classes then occur several times
    per epoch, and only part of a large class occurs. An image is never repeated before every other image of its class
    has occurred.

    Args:
        labels: class index of each image (int64).
        seed: of the run.
        epoch: number of the epoch.
        sampling: "image", "class" or "sqrt".

    Reference:
        Kang et al., Decoupling Representation and Classifier for Long-Tailed Recognition, ICLR 2020,
        arXiv:1910.09217, section 3.1.
    """
    rng = np.random.Generator(np.random.PCG64([_ORDER, seed, epoch]))
    if sampling == "image":
        return rng.permutation(len(labels))
    class_sizes = np.bincount(labels)
    weights = np.where(class_sizes > 0, 1.0, 0.0) if sampling == "class" else np.sqrt(class_sizes)
    # Systematic sampling rounds the number of images per class so that the sum is exact and the mean unbiased.
    ends = np.floor(np.cumsum(len(labels) * weights / weights.sum()) + rng.random())
    ends[-1] = len(labels)
    counts = np.diff(ends, prepend=0.0).astype(np.int64)
    by_class = np.split(np.argsort(labels, kind="stable"), np.cumsum(class_sizes)[:-1])
    drawn = [_draw_images(images, count, rng) for images, count in zip(by_class, counts, strict=True) if count]
    return rng.permutation(np.concatenate(drawn))


def _draw_images(images: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw `count` of a class's images; their numbers of occurrences differ by at most one."""
    rounds = [rng.permutation(images) for _ in range(-(-count // len(images)))]
    return np.concatenate(rounds)[:count]


def count_repeats(order: np.ndarray) -> np.ndarray:
    """Return for each position in an order how often its index occurs before it (int64)."""
    by_index = np.argsort(order, kind="stable")
    ordered = order[by_index]
    places = np.arange(len(order))
    starts = np.maximum.accumulate(np.where(np.diff(ordered, prepend=-1) != 0, places, 0))
    repeats = np.empty(len(order), np.int64)
    repeats[by_index] = places - starts
    return repeats


def epoch_batches(
    labels: np.ndarray, batch_size: int, seed: int, epoch: int, shard: Shard = WHOLE, sampling: Sampling = "image"
) -> list[Batch]:
    """Return the training batches of an epoch in order; see `epoch_order`. `batch_size` is per process.

    Processes get the same number of batches of equal sizes, and no position of the order twice: together, the batches
    of one step are what a single process would take as one batch of `batch_size * world_size`. At the end of the
    epoch, images that cannot be shared equally are dropped.
    """
    order = epoch_order(labels, seed, epoch, sampling)
    repeats = count_repeats(order) if sampling != "image" else np.zeros(len(order), np.int64)
    joint = batch_size * shard.world_size
    batches = []
    for start in range(0, joint * batches_in_epoch(len(order), batch_size, shard.world_size), joint):
        size = len(order[start : start + joint]) // shard.world_size
        part = slice(start + shard.rank * size, start + (shard.rank + 1) * size)
        batches.append(Batch(order[part], repeats[part]))
    return batches


def sequential_batches(images: int, batch_size: int) -> list[Batch]:
    """Return the batches of one pass over all images in their own order."""
    indices = [np.arange(start, min(start + batch_size, images)) for start in range(0, images, batch_size)]
    return [Batch(part, np.zeros(len(part), np.int64)) for part in indices]


def image_seed(seed: int, epoch: int, index: int, repeat: int = 0) -> int:
    """Return the 64-bit seed of the augmentation of one image in one epoch, at its occurrence number `repeat`."""
    again = [repeat] if repeat else []
    sequence = np.random.SeedSequence([_AUGMENTATION, seed, epoch, index, *again])
    return int(sequence.generate_state(1, np.uint64)[0])


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's CPU generator within the block, and restore its state afterwards.

    `torch.manual_seed` would seed the devices as well.
    """
    generator = torch.default_generator
    state = generator.get_state()
    generator.manual_seed(seed)
    try:
        yield
    finally:
        generator.set_state(state)
