"""Which images of a split the runs were trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from fgvc_cli.config.run_config import RunConfig
from fgvc_cli.contracts import Split
from fgvc_cli.data.opening import open_dataset
from fgvc_cli.data.splits import TrainingSplits, training_splits
from fgvc_cli.errors import FgvcError
from fgvc_cli.evaluation.split_selection import SplitRequest, dataset_config
from fgvc_cli.registry import Registry
from fgvc_cli.runs.folder import CONFIG_FILE


@dataclass(frozen=True)
class TrainingHistory:
    """What a run was trained on.

    Attributes:
        source: the dataset's name, or the folder or file that it was made from.
        splits: None where the run was not trained: its weights are a file's, and what they have seen is not known.
    """

    source: str
    splits: TrainingSplits | None


@dataclass
class TrainingHistories:
    """Reads what runs were trained on; a dataset that several share is opened once.

    Attributes:
        registry: finds datasets.
    """

    registry: Registry
    _splits: dict[tuple[Any, ...], TrainingSplits] = field(default_factory=dict)

    def of(self, run_folder: Path) -> TrainingHistory:
        """Read what a run was trained on.

        Raises:
            FgvcError: the run does not say, or its images are not there.
        """
        if not (run_folder / CONFIG_FILE).is_file():
            raise FgvcError(f"it has no {CONFIG_FILE}.")
        config = dataset_config(SplitRequest(), run_folder, self.registry)
        source = str(config.data or config.dataset.name)
        return TrainingHistory(source, self._training_splits(config) if config.train.epochs else None)

    def _training_splits(self, config: RunConfig) -> TrainingSplits:
        dataset, train = config.dataset, config.train
        share, seed, train_on = train.val_fraction, train.split_seed, train.train_on
        key = (dataset.component.distribution, dataset.name, repr(dataset.options), config.data, share, seed, train_on)
        if key not in self._splits:
            opened = open_dataset(dataset.component, dataset.options, config.data, seed)
            self._splits[key] = training_splits(opened, share, seed, train_on)
        return self._splits[key]


def notes_of_runs(runs: Sequence[tuple[str, Path]], split: Split, registry: Registry) -> list[str]:
    """Return lines on which runs have met a split's images in training, and whether they learnt from different sets.

    Args:
        runs: what a person names each by, and the folder that its settings are in.
        split: the images.
        registry: finds datasets.
    """
    histories, images = TrainingHistories(registry), {_identity(image) for image in split.images}
    notes, sources = [], {}
    for name, folder in runs:
        try:
            history = histories.of(folder)
        except FgvcError as error:
            notes.append(f"Whether {name} has learnt these images is not known: {error}")
            continue
        sources[name] = history.source
        notes += _notes_of_one(name, history, images)
    if len(set(sources.values())) > 1:
        each = ", ".join(f"{name} on {source}" for name, source in sources.items())
        notes.append(f"The runs were trained on different datasets: {each}.")
    return notes


def _notes_of_one(name: str, history: TrainingHistory, images: set[str]) -> list[str]:
    if history.splits is None:
        return []
    learnt, chosen_on = _count_seen(history.splits.train, images), _count_seen(history.splits.val, images)
    notes = []
    if learnt:
        notes.append(f"{name} has learnt {learnt} of these {len(images)} images: its figures say nothing of others.")
    if chosen_on:
        notes.append(
            f"The checkpoint of {name} was chosen on {chosen_on} of these {len(images)} images: expect a little less "
            "on images it has never seen."
        )
    return notes


def _count_seen(split: Split | None, images: set[str]) -> int:
    return 0 if split is None else sum(_identity(image) in images for image in split.images)


def _identity(image: Path | np.ndarray) -> str:
    """Return what tells an image from others: its file, or its pixels where it has none."""
    return sha256(image.tobytes()).hexdigest() if isinstance(image, np.ndarray) else str(image.absolute())
