"""The splits of a dataset: select and hold out images, match classes by name."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np

from fgvc_cli.config.train_options import TrainOptions
from fgvc_cli.contracts import Dataset, EncodedImage, Split
from fgvc_cli.data.drawing import NEVER, held_out_by_name, held_out_by_position, parts_of
from fgvc_cli.errors import FgvcError, UsageError, did_you_mean
from fgvc_cli.formatting import counted, percent

logger = logging.getLogger(__name__)


NAMES_SHOWN = 8
"""Number of class names that a message lists."""


class PackedPaths(Sequence[Path]):
    """A sequence of paths stored as one array of bytes and one of offsets.

    A list of 100,000 `Path` objects would be copied by every forked worker that reads it, because reading changes
    reference counts.
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
    """Pack images that are all paths; return anything else unchanged."""
    if isinstance(images, PackedPaths) or not all(isinstance(image, str | Path) for image in images):
        return images
    return PackedPaths(images)


def find_split(dataset: Dataset, name: str, known: Sequence[str] = ()) -> Split:
    """Return a split by name.

    Raises:
        UsageError: there is no such split; the message lists those of the dataset, or `known`.
    """
    if name not in dataset.splits():
        known = known or dataset.splits()
        suggestion = did_you_mean(name, known)
        raise UsageError(f"`split={name}`: {dataset.name} has no such split.{suggestion} Splits: {', '.join(known)}")
    return dataset.split(name)


class Selected(Sequence[Any]):
    """Some items of a sequence that creates them when they are read: a million of them take 8 MB."""

    def __init__(self, items: Sequence[Any], indices: np.ndarray) -> None:
        self._items, self._indices = items, indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self._items[int(self._indices[index])]


def _select(items: Sequence[Any], indices: np.ndarray) -> Sequence[Any]:
    """Return the items at these indices, as a list if the others are one."""
    if isinstance(items, list | tuple):
        return [items[i] for i in indices.tolist()]
    return Selected(items, indices)


def subset(split: Split, indices: Sequence[int] | np.ndarray, name: str, origin: str) -> Split:
    """Return the images of a split at these indices as a new split."""
    positions = np.asarray(indices, dtype=np.int64)
    chosen = positions.tolist()
    encoded = len(split) > 0 and isinstance(split.images[0], EncodedImage)
    return Split(
        name,
        Selected(split.images, positions) if encoded else pack_images([split.images[i] for i in chosen]),
        [int(split.labels[i]) for i in chosen],
        _select(split.keys, positions),
        None if split.parts is None else [split.parts[i] for i in chosen],
        origin,
        None if split.groups is None else [split.groups[i] for i in chosen],
    )


def select_keys(split: Split, keys: Sequence[str]) -> Split:
    """Return the images with these keys, in the order of the keys."""
    position = {key: i for i, key in enumerate(split.keys)}
    return subset(split, [position[key] for key in keys], split.name, split.origin)


def balanced_indices(labels: Sequence[int], limit: int) -> list[int]:
    """Choose at most `limit` images, balanced across classes; deterministic, in ascending order.

    Every class gives the same number of images as far as it has them; a remainder goes to evenly spaced classes.
    Within a class, images are evenly spaced in the order of the split.
    """
    if limit >= len(labels):
        return list(range(len(labels)))
    by_class = [np.flatnonzero(np.asarray(labels) == label) for label in sorted(set(labels))]
    level = 0
    while sum(min(len(images), level + 1) for images in by_class) <= limit:
        level += 1
    quotas = [min(len(images), level) for images in by_class]
    larger = [i for i, images in enumerate(by_class) if len(images) > level]
    for i in _evenly_spaced(len(larger), limit - sum(quotas)):
        quotas[larger[i]] += 1
    chosen = [
        images[_evenly_spaced(len(images), quota)] for images, quota in zip(by_class, quotas, strict=True) if quota
    ]
    return sorted(int(i) for i in np.concatenate(chosen))


def _evenly_spaced(count: int, wanted: int) -> np.ndarray:
    """Return `wanted` evenly spaced positions of `count`, half a step away from both ends."""
    return ((np.arange(wanted) + 0.5) * count / max(wanted, 1)).astype(np.int64)


@dataclass(frozen=True)
class TrainingSplits:
    """The splits of a training run.

    Attributes:
        train: images to train on.
        val: selects the best checkpoint; None if nothing is held out.
        test: None if the dataset has no test split.
    """

    train: Split
    val: Split | None
    test: Split | None


def training_splits(dataset: Dataset, options: TrainOptions) -> TrainingSplits:
    """Return the splits for training; without a validation split, a part of the training images is held out.

    Args:
        dataset: has a "train" split, and may have "val" and "test".
        options: `val_fraction` of the images, in (0, 1), are held out if there is no "val", chosen by `split_seed` and
            `val_by`: "position" is stratified by class as closely as whole images allow, and depends on all images;
            "name" draws for each image independently, so that images stay in their split when others are added or
            removed. Both leave every class a training image. With `train_on` "train+val", both splits are trained on
            and nothing is held out, the usual protocol for small datasets. With `folds`, all images but those of "test"
            are divided into that many folds, stratified by class, and `fold` is held out.

    Raises:
        FgvcError: the dataset has no training split or fewer than two classes, a class has no training image, or no
            class has a second image to hold out for validation.
        UsageError: `val_fraction` is not between 0 and 1.
    """
    train_on, val_fraction, seed = options.train_on, options.val_fraction, options.split_seed
    names = dataset.splits()
    if "train" not in names:
        raise FgvcError(f"{dataset.name} has no split 'train'; its splits: {quoted_names(names) or 'none'}")
    train = dataset.split("train")
    test = dataset.split("test") if "test" in names else None
    if (train_on == "train+val" or options.folds) and "val" in names:
        train = _concatenate(train, dataset.split("val"))
    _check_classes(dataset, train)
    if train_on == "train+val":
        return TrainingSplits(train, None, test)
    if options.folds:
        return _with_fold_held_out(train, test, options)
    if "val" in names:
        return TrainingSplits(train, dataset.split("val"), test)
    if not 0 < val_fraction < 1:
        raise UsageError(f"`train.val_fraction={val_fraction:g}` must be between 0 and 1")
    draw = held_out_by_position if options.val_by == "position" else held_out_by_name
    is_held_out = draw(train, val_fraction, seed)
    how = f"fraction {val_fraction:g}, seed {seed}" + ", by name" * (options.val_by != "position")
    if options.group_by is not None:
        how += f", grouped by {options.group_by}"
        _note_fraction(is_held_out, val_fraction, options.val_by)
    of = f"{train.name} ({train.origin}; {how})" if train.origin else f"{train.name} ({how})"
    rest = f"{train.origin}, " * bool(train.origin) + f"without the images split off as val ({how})"
    return TrainingSplits(
        subset(train, np.flatnonzero(~is_held_out), "train", rest),
        subset(train, np.flatnonzero(is_held_out), "val", f"split off from {of}"),
        test,
    )


def _with_fold_held_out(whole: Split, test: Split | None, options: TrainOptions) -> TrainingSplits:
    folds, fold = options.folds, options.fold
    fold_of = parts_of(whole, [1 / folds] * folds, options.split_seed)
    if not (fold_of == fold - 1).any():
        what = "images" if whole.groups is None else "groups (`group_by`)"
        raise FgvcError(f"Fold {fold} of {folds} has no images: there are too few {what} in classes; use fewer `folds`")
    if (fold_of == NEVER).any():
        never = int((fold_of == NEVER).sum())
        logger.info(
            f"{counted(never, 'image')} {'is' if never == 1 else 'are'} in no fold and always trained on, since their "
            "classes would have no others"
        )
    grouped = "" if options.group_by is None else f", grouped by {options.group_by}"
    how = f"fold {fold} of {folds} of {whole.name}, seed {options.split_seed}{grouped}"
    return TrainingSplits(
        subset(whole, np.flatnonzero(fold_of != fold - 1), "train", f"without {how}"),
        subset(whole, np.flatnonzero(fold_of == fold - 1), "val", how),
        test,
    )


def _note_fraction(is_held_out: np.ndarray, wanted: float, val_by: str) -> None:
    """Say that whole groups gave another fraction than wanted."""
    found = float(is_held_out.mean())
    if not wanted / 1.5 < found < wanted * 1.5:
        closer = "; `train.val_by=position` draws closer to it" if val_by != "position" else ""
        logger.info(f"groups hold out {percent(found)} of the images in place of {percent(wanted)}{closer}")


def _concatenate(train: Split, val: Split) -> Split:
    """Return both splits as one, with the split's name before each key."""
    parts = None if train.parts is None or val.parts is None else [*train.parts, *val.parts]
    groups = None if train.groups is None or val.groups is None else [*train.groups, *val.groups]
    origins = " and ".join(f"{split.name} ({split.origin})" if split.origin else split.name for split in (train, val))
    return Split(
        "train+val",
        pack_images([*train.images, *val.images]),
        [*train.labels, *val.labels],
        [f"{split.name}/{key}" for split in (train, val) for key in split.keys],
        parts,
        f"{origins} together, nothing held out",
        groups,
    )


def quoted_names(names: Sequence[str]) -> str:
    """Return the first few names in quotes, and the number of the others."""
    shown = ", ".join(f"'{name}'" for name in names[:NAMES_SHOWN])
    more = len(names) - NAMES_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


def _check_classes(dataset: Dataset, train: Split) -> None:
    classes = dataset.class_names
    if len(classes) < 2:
        raise FgvcError(
            f"{dataset.name} has {counted(len(classes), 'class', 'classes')} ({quoted_names(classes)}); "
            "a classifier needs two or more"
        )
    counts = np.bincount(np.asarray(train.labels, dtype=np.int64), minlength=len(classes))
    missing = [name for name, count in zip(classes, counts, strict=True) if count == 0]
    if missing:
        raise FgvcError(
            f"{dataset.name} has no training images of {quoted_names(missing)}. "
            "Add images to the training split, or remove these classes from the other splits"
        )
    single = [name for name, count in zip(classes, counts, strict=True) if count == 1]
    if single:
        logger.warning(f"{dataset.name} has a single training image of {quoted_names(single)}; expect poor results")


def match_classes(
    split: Split, dataset_classes: Sequence[str], model_classes: Sequence[str], ignore_unknown: bool
) -> Split:
    """Return the split with labels that index the model's classes.

    Only classes with images in the split are considered. The split may lack classes of the model.

    Args:
        split: its labels index `dataset_classes`.
        dataset_classes: names of the dataset's classes.
        model_classes: names of the model's classes, in the order of its logits.
        ignore_unknown: skip images of classes that the model does not know, with a warning.

    Raises:
        UsageError: the split has classes that the model does not know, and `ignore_unknown` is False.
        FgvcError: no image is left.
    """
    index_of = {name: index for index, name in enumerate(model_classes)}
    present = [dataset_classes[label] for label in sorted(set(split.labels))]
    unknown = [name for name in present if name not in index_of]
    if unknown and not ignore_unknown:
        near = did_you_mean(unknown[0], model_classes) if len(unknown) == 1 else ""
        raise UsageError(
            f"The model does not know {counted(len(unknown), 'class', 'classes')} of the {split.name} "
            f"split: {quoted_names(unknown)}.{near} Rename the folders to the model's class names, or skip these "
            "classes with `ignore_unknown`"
        )
    known = [i for i, label in enumerate(split.labels) if dataset_classes[label] in index_of]
    if not known:
        raise FgvcError(f"The {split.name} split has no image of a class that the model knows")
    skipped = len(split) - len(known)
    if skipped:
        logger.warning(f"skipped {counted(skipped, 'image')} of classes unknown to the model: {quoted_names(unknown)}")
    matched = subset(split, known, split.name, split.origin) if skipped else split
    labels = [index_of[dataset_classes[label]] for label in matched.labels]
    return Split(matched.name, matched.images, labels, matched.keys, matched.parts, matched.origin, matched.groups)
