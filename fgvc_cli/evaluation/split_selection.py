"""Select the images that a run is evaluated on: a split of its own dataset, or of another one."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from fgvc_cli import files
from fgvc_cli.config.layering import Layer
from fgvc_cli.config.run_config import PLUGINS, RunConfig, read_run_config, resolve
from fgvc_cli.contracts import Dataset, Split
from fgvc_cli.data.exclusion import ExcludingDataset, Exclusion
from fgvc_cli.data.identity import DataIdentity
from fgvc_cli.data.opening import open_run_dataset
from fgvc_cli.data.splits import find_split, match_classes, training_splits
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.registry import Registry
from fgvc_cli.runs.folder import CONFIG_FILE, MODEL_FILE
from fgvc_cli.runs.model_file import read_metadata
from fgvc_cli.scoring.results import SHARPNESS, SUMMARY, dataset_record
from fgvc_cli.training.setup import WITHOUT_WEIGHTS

logger = logging.getLogger(__name__)

ALL = "all"
"""The name of the split of a folder without split folders."""

TrainingRole = Literal["", "trained", "selected"]
ROLE_NOTES: dict[TrainingRole, str] = {
    "": "",
    "trained": "The classifier was trained on these images: the metrics do not generalize to others.",
    "selected": "The checkpoint was selected on val: expect slightly lower metrics on unseen images.",
}


@dataclass(frozen=True)
class SplitRequest:
    """A request for a split of a dataset.

    Attributes:
        split: its name; None: "test" or, without one, "val" or the first.
        data: a folder or file other than the run's own dataset.
        dataset: the name of a dataset other than the run's own.
        options: options of the dataset.
        ignore_unknown: whether to skip images of classes that the classifier does not have.
        prefer_training: whether the default split is the one the run was trained on instead of "test".
        prefer_validation: whether it is "val", or all images of a dataset without splits.
        allow_changed_data: whether the run's own dataset may have changed since training.
        exclude: CSV file of images to leave out, besides those that the run was trained without.
    """

    split: str | None = None
    data: Path | None = None
    dataset: str | None = None
    options: Layer = field(default_factory=dict)
    ignore_unknown: bool = False
    prefer_training: bool = False
    prefer_validation: bool = False
    allow_changed_data: bool = False
    exclude: Path | None = None

    @property
    def is_own(self) -> bool:
        """Whether this is the run's own dataset."""
        return self.data is None and self.dataset is None


@dataclass(frozen=True)
class SelectedSplit:
    """The images that a run is evaluated on.

    Attributes:
        split: labels index the classifier's class names.
        dataset: name of the dataset.
        data: the folder or file that it reads, or None.
        is_own: whether the run was trained on this dataset.
        fallback_note: says that a split other than "test" was selected by default; "" if not.
        role: of these images in training: the run was "trained" on them, its checkpoint was "selected" on them, or ""
            if neither is known.
        opened: the dataset; it may keep its images in a temporary folder that exists as long as it does.
        exclude: CSV file of images that are left out for this selection alone.
    """

    split: Split
    dataset: str
    data: Path | None
    is_own: bool
    fallback_note: str = ""
    role: TrainingRole = ""
    opened: Dataset | None = None
    exclude: Path | None = None

    @property
    def description(self) -> str:
        """Number, split and dataset of the images."""
        return f"images     {len(self.split)}, {self.split.name} of {self.data or self.dataset}"

    @property
    def notes(self) -> tuple[str, ...]:
        """What to know when reading the metrics."""
        notes = " ".join(text for text in (self.fallback_note, ROLE_NOTES[self.role]) if text)
        return (notes,) if notes else ()


def select_split(
    request: SplitRequest, run_folder: Path, class_names: Sequence[str], registry: Registry
) -> SelectedSplit:
    """Open a dataset and select a split.

    Raises:
        UsageError: the split does not exist, or the classifier does not have its classes.
        FgvcError: the images are missing, or differ from those of the training.
    """
    config = dataset_config(request, run_folder, registry)
    dataset = open_run_dataset(config)
    name = request.split or _default_split(request, dataset, config)
    split = _own_split(dataset, name, config) if request.is_own else find_split(dataset, name)
    if request.is_own:
        _check_unchanged(run_folder, dataset, name, request.allow_changed_data, config)
    if request.exclude is not None:
        split = _without(split, request.exclude, dataset, config)
    preferred = request.prefer_training or request.prefer_validation
    fallback_note = "" if request.split or preferred else _fallback_note(name, request.is_own)
    role: TrainingRole = _training_role(name, config) if request.is_own else ""
    if not request.is_own and request.split is None and dataset.splits() == ("train",):
        split = Split(ALL, split.images, split.labels, split.keys, split.parts)
    matched = match_classes(split, dataset.class_names, class_names, request.ignore_unknown)
    return SelectedSplit(
        matched, dataset.name, config.data, request.is_own, fallback_note, role, dataset, request.exclude
    )


def dataset_config(request: SplitRequest, run_folder: Path, registry: Registry) -> RunConfig:
    """Resolve the settings of a run that concern its data, overridden by another dataset.

    Raises:
        UsageError: the run's own dataset is requested, but its folder does not name it.
        FgvcError: the run's settings are damaged.
    """
    file = run_folder / CONFIG_FILE
    if request.is_own and not file.is_file():
        raise UsageError(f"{run_folder} has no {CONFIG_FILE} that names its dataset; name one with `data` or `dataset`")
    run: Layer = read_run_config(file, ("dataset",))[0] if file.is_file() else {}
    dataset: dict[str, Any] = dict(run.get("dataset", {})) if request.is_own else {}
    if request.dataset is not None:
        dataset["name"] = request.dataset
    if request.data is not None:
        dataset["data"] = str(request.data)
    dataset.update(request.options)
    # Other settings are ignored: the run's optimizer and trackers need not be installed to evaluate it.
    ignored = ("track",) if request.is_own else ("track", "exclude", "group_by", "folds", "fold")
    train = {name: value for name, value in run.get("train", {}).items() if name not in ignored}
    name = str(dataset.get("name", ""))
    plugins = {plugin: v for plugin, v in run.get(PLUGINS, {}).items() if name.startswith(f"{plugin}:")}
    return resolve([{"dataset": dataset, "train": train, PLUGINS: plugins}], WITHOUT_WEIGHTS, {}, registry)


def _default_split(request: SplitRequest, dataset: Dataset, config: RunConfig) -> str:
    names, train_on = dataset.splits(), config.train.train_on
    if request.prefer_validation:
        undivided = not request.is_own and names == ("train",)
        if not (undivided or "val" in names or (request.is_own and train_on == "train")):
            raise FgvcError(
                f"{dataset.name} has no validation images: name a split that the run was not trained on (`split`), or "
                "other images of its classes (`data`)"
            )
        return "train" if undivided else "val"
    if request.prefer_training:
        return train_on if request.is_own and "val" in names else "train" if "train" in names else names[0]
    if "test" in names:
        return "test"
    held_out = request.is_own and train_on == "train"  # training held out a validation split if there was none
    return "val" if held_out or "val" in names else names[0]


def _own_split(dataset: Dataset, name: str, config: RunConfig) -> Split:
    """Return a split as training saw it: validation images may have been held out of it, or added to it."""
    train = config.train
    made: dict[str, Split] = {}
    if name in ("train", "val", train.train_on):
        splits = training_splits(dataset, train)
        made = {split.name: split for split in (splits.train, splits.val) if split is not None}
    own = ["val"] if train.train_on == "train" else [train.train_on] if "val" in dataset.splits() else []
    return made[name] if name in made else find_split(dataset, name, tuple(dict.fromkeys((*dataset.splits(), *own))))


def _without(split: Split, exclude: Path, dataset: Dataset, config: RunConfig) -> Split:
    """Leave images out of a split; a validation split that was held out has images of "train", or of all folds."""
    excluding = Exclusion.read(exclude)
    given = dataset.dataset if isinstance(dataset, ExcludingDataset) else dataset
    whole = ExcludingDataset(given, excluding)
    source = split.name if split.name in dataset.splits() or "+" in split.name else "train"
    if config.train.folds and source in ("train", "val"):
        source = "train+val" if "val" in dataset.splits() else "train"
    for name in source.split("+"):
        whole.split(name)  # it names only images of the split
    return excluding.apply(split, excluding.of(source))


def _check_unchanged(run_folder: Path, dataset: Dataset, name: str, allow: bool, config: RunConfig) -> None:
    """Refuse images other than those of the training, or warn of them if they are allowed.

    A split of its own is compared alone; images that were held out follow from all of train.

    Raises:
        FgvcError: the classes or the images changed, and `allow` is False.
    """
    file = run_folder / MODEL_FILE
    recorded = DataIdentity.recorded(read_metadata(file)) if file.is_file() else None
    if recorded is None:
        return
    drawn = name == "train" or name not in dataset.splits() or (name == "val" and config.train.folds)
    splits = ["train", "val"] if drawn else [name]
    changes = "; ".join(recorded.changes_to(DataIdentity.of(dataset, splits), splits))
    if not changes:
        return
    what = f"the data of {run_folder} changed since training: {changes}"
    if not allow:
        raise FgvcError(
            f"{what}. Restore it, name the images to use with `data`, or use the data as it is now "
            "(`allow_changed_data=true`)"
        )
    logger.warning(what)


def _fallback_note(name: str, is_own: bool) -> str:
    if is_own and name != "test":
        return f"The run's dataset has no test split; using {'its validation split' if name == 'val' else name}."
    return f"There is no test split; using {name}." if name == "val" else ""


def _training_role(name: str, config: RunConfig) -> TrainingRole:
    if not config.train.epochs:  # the weights come from a file, and what they were trained on is unknown
        return ""
    if name in {"train", config.train.train_on, *config.train.train_on.split("+")}:
        return "trained"
    return "selected" if name == "val" else ""


def results_folder(
    run_folder: Path,
    selected: SelectedSplit,
    out: Path | None,
    force: bool,
    what: str = "evaluation",
    tta: Sequence[str] = (),
) -> Path:
    """Return the folder for the results: `out`, or one in the run, named after split, exclusion and augmentation.

    The folder in the run belongs to that split of that dataset; new results replace earlier ones.

    Raises:
        UsageError: `out` is a file, or exists and `force` is not set.
        FgvcError: the folder in the run has results of other images with the same name.
    """
    if out is not None:
        if out.exists() and not (out.is_dir() and not any(out.iterdir())) and not force:
            raise UsageError(f"`out={out}` already exists; choose another folder, or overwrite it with `force`")
        if out.is_file():
            raise UsageError(f"`out={out}` is a file; name a folder")
        return out
    other = "" if selected.is_own else Path(selected.dataset).name.replace(":", "-") + "-"
    excluded = ["excluded"] * (selected.exclude is not None)
    folder = run_folder / what / "-".join([f"{other}{selected.split.name}", *excluded, *tta])
    for earlier in _recorded_datasets(folder):
        if earlier != dataset_record(selected.dataset, selected.data):
            data = (earlier or {}).get("data") or "another dataset"
            raise FgvcError(
                f"{folder} has the results of an {Path(what).parts[0]} on {data}; choose another folder with `out`"
            )
    return folder


def _recorded_datasets(folder: Path) -> list[Any]:
    """Return the datasets of the results in a folder."""
    recorded = []
    if (folder / SUMMARY).is_file():
        recorded.append(files.read_object(folder / SUMMARY, files.DELETE_ADVICE).get("dataset"))
    if (folder / SHARPNESS).is_file():
        sharpness = files.read_object(folder / SHARPNESS, files.DELETE_ADVICE)
        recorded += [run.get("dataset") for run in sharpness.get("runs", ())]
    return recorded
