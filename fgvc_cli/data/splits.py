"""Which images train, which select the best checkpoint, and which are held out for the test."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np

from fgvc_cli.contracts import Dataset, Split
from fgvc_cli.errors import FgvcError, UsageError

logger = logging.getLogger(__name__)


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


class PackedPaths(Sequence[Path]):
    """A sequence of paths that is stored as one array of bytes and one of offsets.

    A list of a hundred thousand `Path`s is that many Python objects; a forked worker that looks at them changes their
    reference counts and so copies the memory that it shared with its parent.
    """

    def __init__(self, paths: Iterable[str | Path]) -> None:
        encoded = [os.fsencode(path) for path in paths]
        self._bytes = np.frombuffer(b"".join(encoded), dtype=np.uint8)
        self._offsets = np.cumsum([0, *map(len, encoded)], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    @overload
    def __getitem__(self, index: int) -> Path: ...

    @overload
    def __getitem__(self, index: slice) -> list[Path]: ...

    def __getitem__(self, index: int | slice) -> Path | list[Path]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        position = range(len(self))[index]  # negative indices and IndexError as for a list
        start, end = self._offsets[position], self._offsets[position + 1]
        return Path(os.fsdecode(self._bytes[start:end].tobytes()))


def pack_images(images: Sequence[Any]) -> Sequence[Any]:
    """Pack images that are all paths; arrays, and sequences that are packed already, stay as they are."""
    if isinstance(images, PackedPaths) or not all(isinstance(image, str | Path) for image in images):
        return images
    return PackedPaths(images)


def taken(images: Sequence[Any], indices: Iterable[int]) -> Sequence[Any]:
    """Return the images at these indices, packed if they are paths."""
    chosen = list(indices)
    if all(isinstance(images[i], str | Path) for i in chosen):
        return PackedPaths(images[i] for i in chosen)
    return [images[i] for i in chosen]


TrainOn = Literal["train", "train+val"]
NAMES_SHOWN = 8
"""How many class names a message lists before it only counts the rest."""


@dataclass(frozen=True)
class TrainingSplits:
    """The splits of a training run.

    Attributes:
        train: what is learnt.
        val: what chooses the best checkpoint; None where nothing is held out.
        test: None where the dataset has no such split.
    """

    train: Split
    val: Split | None
    test: Split | None


def training_splits(dataset: Dataset, val_fraction: float, seed: int, train_on: TrainOn = "train") -> TrainingSplits:
    """Choose the splits for training; without a validation split, a part of the training images becomes one.

    Args:
        dataset: has a "train" split, and may have "val" and "test".
        val_fraction: share of the training images that is split off if there is no "val", within 0 and 1. Each
            class gives its share, as near as whole images allow, and keeps at least one image for training.
        seed: of the choice.
        train_on: "train+val" takes validation images for training too, and splits nothing off: the literature's
            protocol where a dataset is small.

    Raises:
        FgvcError: there is no training split or only one class, a class has no training image, or no class can spare
            an image for validation.
        UsageError: the share is not within 0 and 1.
    """
    names = dataset.splits()
    if "train" not in names:
        raise FgvcError(
            f"{dataset.name} has no images to train on: there is no split 'train', only {listed(names)}."
            if names
            else f"{dataset.name} has no splits."
        )
    train = dataset.split("train")
    test = dataset.split("test") if "test" in names else None
    if train_on == "train+val" and "val" in names:
        train = _joined(train, dataset.split("val"))
    _check_classes(dataset, train)
    if train_on == "train+val":
        return TrainingSplits(train, None, test)
    if "val" in names:
        return TrainingSplits(train, dataset.split("val"), test)
    kept, held_out = _stratified(np.asarray(train.labels), val_fraction, seed)
    how = f"share {val_fraction:g}, seed {seed}"
    of = f"{train.name} ({train.origin}; {how})" if train.origin else f"{train.name} ({how})"
    rest = f"{train.origin}, " * bool(train.origin) + f"without what was split off as val ({how})"
    return TrainingSplits(
        subset(train, kept, "train", rest), subset(train, held_out, "val", f"split off from {of}"), test
    )


def _joined(train: Split, val: Split) -> Split:
    """Return both as one split; keys tell which one an image is of."""
    parts = None if train.parts is None or val.parts is None else [*train.parts, *val.parts]
    origins = " and ".join(f"{split.name} ({split.origin})" if split.origin else split.name for split in (train, val))
    return Split(
        "train+val",
        pack_images([*train.images, *val.images]),
        [*train.labels, *val.labels],
        [f"{split.name}/{key}" for split in (train, val) for key in split.keys],
        parts,
        f"{origins} together, nothing held out",
    )


def subset(split: Split, indices: Sequence[int] | np.ndarray, name: str, origin: str) -> Split:
    """Return the images of a split at these indices, as a split of its own."""
    chosen = [int(index) for index in indices]
    return Split(
        name,
        taken(split.images, chosen),
        [int(split.labels[i]) for i in chosen],
        [split.keys[i] for i in chosen],
        None if split.parts is None else [split.parts[i] for i in chosen],
        origin,
    )


def by_keys(split: Split, keys: Sequence[str]) -> Split:
    """Return the images with these keys, in their order."""
    position = {key: i for i, key in enumerate(split.keys)}
    return subset(split, [position[key] for key in keys], split.name, split.origin)


def listed(names: Sequence[str]) -> str:
    """Write names as a list, the first few in full."""
    shown = ", ".join(f"'{name}'" for name in names[:NAMES_SHOWN])
    more = len(names) - NAMES_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


def _check_classes(dataset: Dataset, train: Split) -> None:
    classes = dataset.class_names
    if len(classes) < 2:
        raise FgvcError(
            f"{dataset.name} has {len(classes)} class{'' if len(classes) == 1 else 'es'} ({listed(classes)}), and a "
            "classifier needs two or more to tell apart."
        )
    counts = np.bincount(np.asarray(train.labels, dtype=np.int64), minlength=len(classes))
    missing = [name for name, count in zip(classes, counts, strict=True) if count == 0]
    if missing:
        raise FgvcError(
            f"{dataset.name} has no training image of {listed(missing)}, which a classifier cannot learn unseen. "
            "Add images to the training split, or take these classes out of the other splits."
        )
    single = [name for name, count in zip(classes, counts, strict=True) if count == 1]
    if single:
        logger.warning(f"{dataset.name} has a single training image of {listed(single)}; do not expect much of it.")


def _stratified(labels: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Divide image indices into those that stay and those held out, both in ascending order."""
    if not 0 < share < 1:
        raise UsageError(f"A validation share of {share:g} is not possible: it must lie between 0 and 1.")
    rng = np.random.Generator(np.random.PCG64(seed))
    counts = np.bincount(labels)
    wanted = _held_out_by_class(counts, share, rng)
    if wanted.sum() == 0:
        raise FgvcError(
            "No class has a second image, so none can be held out for validation. Add images, or a val split."
        )
    held_out = np.zeros(len(labels), dtype=bool)
    for label, count in enumerate(wanted):
        held_out[rng.permutation(np.flatnonzero(labels == label))[:count]] = True
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def _held_out_by_class(counts: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Say how many images each class gives: whole parts of its share, then the largest remainders up to the total."""
    spare = np.maximum(counts - 1, 0)
    exact = np.round(counts * share, 9)  # 0.07 * 100 is 7, and leaves no remainder
    wanted = np.minimum(np.floor(exact).astype(np.int64), spare)
    total = max(1, round(float(counts.sum() * share)))
    ties_by_lot = rng.permutation(len(counts))
    by_remainder = ties_by_lot[np.argsort(-(exact - wanted)[ties_by_lot], kind="stable")]
    for label in by_remainder:
        if wanted.sum() >= total:
            break
        wanted[label] += wanted[label] < min(exact[label], spare[label])
    return wanted
