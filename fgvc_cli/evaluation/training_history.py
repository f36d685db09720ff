"""Detect runs that were trained or validated on the images of a split."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from fgvc_cli.contracts import EncodedImage, Split
from fgvc_cli.data.identity import DataIdentity, SplitIdentity
from fgvc_cli.data.opening import open_run_dataset
from fgvc_cli.data.splits import TrainingSplits, training_splits
from fgvc_cli.errors import FgvcError
from fgvc_cli.evaluation.split_selection import SplitRequest, dataset_config
from fgvc_cli.registry import Registry
from fgvc_cli.runs.folder import CONFIG_FILE, Run
from fgvc_cli.runs.model_file import read_metadata
from fgvc_cli.training.state import recorded_data


def notes_of_runs(runs: Sequence[tuple[str, Path]], split: Split, registry: Registry) -> list[str]:
    """Return notes on runs (label, folder) trained or validated on images of a split, or on different datasets."""
    images = {_identity(image) for image in split.images}
    opened: dict[tuple[Any, ...], tuple[TrainingSplits, DataIdentity]] = {}
    notes, sources = [], {}
    for label, folder in runs:
        try:
            source, found = _training_data(folder, registry, opened)
        except FgvcError as error:
            notes.append(f"Unknown whether {label} was trained on these images: {error}")
            continue
        sources[label] = source
        if found is None:
            continue
        splits, now = found
        recorded = recorded_data(Run(folder))
        if recorded is not None and (changes := "; ".join(recorded.changes_to(now, now.splits))):
            notes.append(f"The data of {label} changed since training: {changes}.")
        trained, validated = _count_in(splits.train, images), _count_in(splits.val, images)
        if trained:
            notes.append(
                f"{label} was trained on {trained} of these {len(images)} images: its metrics do not generalize to "
                "others."
            )
        if validated:
            notes.append(
                f"The checkpoint of {label} was selected on {validated} of these {len(images)} images: expect slightly "
                "lower metrics on unseen images."
            )
    if len(set(sources.values())) > 1:
        each = ", ".join(f"{label} on {source}" for label, source in sources.items())
        notes.append(f"The runs were trained on different datasets: {each}.")
    return notes


def count_trained(model_file: Path, split: Split, class_names: Sequence[str], registry: Registry) -> int:
    """Return the number of images of a split that a run is known to be trained on.

    They are the files of its training split. Where none is, as for a copy of the data or of the model file, they are
    the classes whose images have the names and sizes of those of the training split, which the model file records.
    """
    try:
        _, found = _training_data(model_file.parent, registry, {})
        if found is None:
            return 0
        trained = _count_in(found[0].train, {_identity(image) for image in split.images})
    except FgvcError:
        trained = 0
    recorded = DataIdentity.recorded(read_metadata(model_file))
    train = None if recorded is None else recorded.splits.get("train")
    if trained or train is None:
        return trained
    here = SplitIdentity.of(split, class_names)
    return sum(count for name, count in here.counts.items() if train.digests.get(name) == here.digests[name])


def _training_data(
    run_folder: Path, registry: Registry, opened: dict[tuple[Any, ...], tuple[TrainingSplits, DataIdentity]]
) -> tuple[str, tuple[TrainingSplits, DataIdentity] | None]:
    """Return the name or path of a run's dataset, and its training data; None for a run whose weights come from a file.

    Raises:
        FgvcError: the run does not record it, or its images are missing.
    """
    if not (run_folder / CONFIG_FILE).is_file():
        raise FgvcError(f"it has no {CONFIG_FILE}")
    config = dataset_config(SplitRequest(), run_folder, registry)
    dataset, train = config.dataset, config.train
    source = str(config.data or dataset.name)
    if not train.epochs:
        return source, None
    drawn = train.val_fraction, train.split_seed, train.val_by, train.group_by, train.folds, train.fold
    how = *drawn, train.train_on, train.exclude
    key = (dataset.component.distribution, dataset.name, repr(dataset.options), config.data, *how)
    if key not in opened:
        own = open_run_dataset(config)
        opened[key] = training_splits(own, train), DataIdentity.of(own, ("train", "val"))
    return source, opened[key]


def _count_in(split: Split | None, images: set[str]) -> int:
    return 0 if split is None else sum(_identity(image) in images for image in split.images)


def _identity(image: Path | EncodedImage | np.ndarray) -> str:
    """Identify an image by its file or name, or by its pixels if it has none."""
    if isinstance(image, EncodedImage):
        return image.name
    return sha256(image.tobytes()).hexdigest() if isinstance(image, np.ndarray) else str(image.absolute())
