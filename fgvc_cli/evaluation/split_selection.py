"""Which images a run is evaluated on: a split of its own dataset, or of another one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from fgvc_cli import files
from fgvc_cli.config.layering import Layer
from fgvc_cli.config.run_config import RunConfig, read_run_config, resolve
from fgvc_cli.contracts import Dataset, Split
from fgvc_cli.data.opening import match_classes, open_dataset
from fgvc_cli.data.splits import training_splits
from fgvc_cli.errors import FgvcError, UsageError, did_you_mean
from fgvc_cli.registry import Registry
from fgvc_cli.runs.folder import CONFIG_FILE
from fgvc_cli.scoring.results import SHARPNESS, SUMMARY, dataset_record
from fgvc_cli.training.setup import WITHOUT_WEIGHTS

ALL = "all"
"""What a folder without split folders is called when a run is evaluated on it."""

TrainingRole = Literal["", "learnt", "chosen"]
ROLE_NOTES: dict[TrainingRole, str] = {
    "": "",
    "learnt": "The classifier has learnt these very images: the figures say nothing of others.",
    "chosen": "The checkpoint was chosen on val: expect a little less on images it has never seen.",
}


@dataclass(frozen=True)
class SplitRequest:
    """What a person wants a run to be evaluated on.

    Attributes:
        split: its name; None: "test", or what comes nearest to it.
        data: a folder other than the run's own dataset.
        dataset: a dataset by name, other than the run's own.
        options: options of the dataset.
        ignore_unknown: whether to leave out images of classes that the classifier does not know.
        learnt: whether the images that were trained on are meant where no split is named, not the test split.
    """

    split: str | None = None
    data: Path | None = None
    dataset: str | None = None
    options: Layer = field(default_factory=dict)
    ignore_unknown: bool = False
    learnt: bool = False

    @property
    def is_own(self) -> bool:
        """Whether the run's own dataset is meant."""
        return self.data is None and self.dataset is None


@dataclass(frozen=True)
class SelectedSplit:
    """The images that a run is evaluated on.

    Attributes:
        split: its labels index the classifier's class names.
        dataset: the dataset's name.
        data: the folder it was made from, or None.
        is_own: whether the run was trained on this dataset.
        stands_in: what is to be said of a split that nobody named and that is no test split; or nothing.
        met: what part these images had in the run's training: it has "learnt" them, its checkpoint was "chosen" on
            them; "": none that is known.
        opened: the dataset itself, which may hold its images in a temporary folder as long as it lives.
    """

    split: Split
    dataset: str
    data: Path | None
    is_own: bool
    stands_in: str = ""
    met: TrainingRole = ""
    opened: Dataset | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know when reading the figures."""
        said = " ".join(text for text in (self.stands_in, ROLE_NOTES[self.met]) if text)
        return (said,) if said else ()


def select_split(
    request: SplitRequest, run_folder: Path, class_names: Sequence[str], registry: Registry
) -> SelectedSplit:
    """Open the dataset that is meant and take the split that is meant.

    Args:
        request: what a person wants.
        run_folder: the run's; its `config.toml` names its dataset.
        class_names: of the run's classifier.
        registry: finds datasets.

    Raises:
        UsageError: there is no such split, or classes are unknown to the classifier.
        FgvcError: the images are not there.
    """
    config = dataset_config(request, run_folder, registry)
    dataset = open_dataset(config.dataset.component, config.dataset.options, config.data, config.train.split_seed)
    name = request.split or _default_split(request, dataset, config)
    split = _own_split(dataset, name, config) if request.is_own else _split(dataset, name, dataset.splits())
    stands_in = "" if request.split or request.learnt else _fallback_note(name, request.is_own)
    met: TrainingRole = _training_role(name, config) if request.is_own else ""
    if not request.is_own and request.split is None and dataset.splits() == ("train",):
        split = Split(ALL, split.images, split.labels, split.keys, split.parts)
    matched = match_classes(split, dataset.class_names, class_names, request.ignore_unknown)
    return SelectedSplit(matched, dataset.name, config.data, request.is_own, stands_in, met, dataset)


def dataset_config(request: SplitRequest, run_folder: Path, registry: Registry) -> RunConfig:
    """Resolve the run's settings as far as they concern data, another dataset laid over them.

    Raises:
        UsageError: the run's own dataset is meant, and nothing in its folder names it.
        FgvcError: the run's settings are damaged.
    """
    file = run_folder / CONFIG_FILE
    if request.is_own and not file.is_file():
        raise UsageError(
            f"{run_folder} has no {CONFIG_FILE} that names its dataset: name one with --data or --dataset."
        )
    run: Layer = read_run_config(file, ("dataset",))[0] if file.is_file() else {}
    dataset: dict[str, Any] = dict(run.get("dataset", {})) if request.is_own else {}
    if request.dataset is not None:
        dataset["name"] = request.dataset
    if request.data is not None:
        dataset["data"] = str(request.data)
    dataset.update(request.options)
    # The rest of the run's settings stays out: its optimizer and its trackers need not be installed to evaluate it.
    train = {name: value for name, value in run.get("train", {}).items() if name != "track"}
    return resolve([{"dataset": dataset, "train": train}], WITHOUT_WEIGHTS, {}, registry)


def _default_split(request: SplitRequest, dataset: Dataset, config: RunConfig) -> str:
    """Choose a split: what was trained on, or "test" and what comes nearest to it."""
    names, train_on = dataset.splits(), config.train.train_on
    if request.learnt:
        return train_on if request.is_own and "val" in names else "train" if "train" in names else names[0]
    if "test" in names:
        return "test"
    held_out = request.is_own and train_on == "train"  # training split one off for validation if there was none
    return "val" if held_out or "val" in names else names[0]


def _own_split(dataset: Dataset, name: str, config: RunConfig) -> Split:
    train = config.train
    seen: dict[str, Split] = {}
    if name in ("train", "val", train.train_on):  # as training saw them: val may have been split off, or taken in
        splits = training_splits(dataset, train.val_fraction, train.split_seed, train.train_on)
        seen = {split.name: split for split in (splits.train, splits.val) if split is not None}
    own = ["val"] if train.train_on == "train" else [train.train_on] if "val" in dataset.splits() else []
    return seen[name] if name in seen else _split(dataset, name, tuple(dict.fromkeys((*dataset.splits(), *own))))


def _split(dataset: Dataset, name: str, known: Sequence[str]) -> Split:
    if name not in dataset.splits():
        raise UsageError(
            f"--split {name}: {dataset.name} has no such split.{did_you_mean(name, known)} Splits: {', '.join(known)}."
        )
    return dataset.split(name)


def _fallback_note(name: str, is_own: bool) -> str:
    """Say which split is taken where there is no test split; of a folder without splits, nothing."""
    if is_own and name != "test":
        return f"The run's dataset has no test split, so this is {'its validation split' if name == 'val' else name}."
    return f"There is no test split: this is {name}." if name == "val" else ""


def _training_role(name: str, config: RunConfig) -> TrainingRole:
    """Say what part a split of the run's own dataset had in its training."""
    if not config.train.epochs:  # the weights are a file's, and what that has seen is not known
        return ""
    if name in {"train", config.train.train_on, *config.train.train_on.split("+")}:
        return "learnt"
    return "chosen" if name == "val" else ""


def results_folder(
    run_folder: Path, subject: SelectedSplit, out: Path | None, force: bool, what: str = "evaluation"
) -> Path:
    """Return the folder for the results: `--out`, or one in the run that is named after the split.

    The folder in the run belongs to that split of that dataset, and a new evaluation replaces the one before.

    Args:
        run_folder: the run's.
        subject: the images.
        out: what `--out` names.
        force: whether that may exist.
        what: the results are of, "evaluation" or "explanation"; the folder in the run that they go to.

    Raises:
        UsageError: `--out` exists, without `--force`.
        FgvcError: the folder in the run holds an evaluation of other images that happen to have the same name.
    """
    if out is not None:
        if out.exists() and not (out.is_dir() and not any(out.iterdir())) and not force:
            raise UsageError(f"--out {out} exists: choose another folder, or let it be overwritten with --force.")
        if out.is_file():
            raise UsageError(f"--out {out} is a file: name a folder.")
        return out
    other = "" if subject.is_own else Path(subject.dataset).name.replace(":", "-") + "-"
    folder = run_folder / what / f"{other}{subject.split.name}"
    for before in _recorded_datasets(folder):
        if before != dataset_record(subject.dataset, subject.data):
            data = (before or {}).get("data") or "another dataset"
            raise FgvcError(f"{folder} holds an {what} on {data}: give this one a folder of its own with --out.")
    return folder


def _recorded_datasets(folder: Path) -> Iterator[Any]:
    """Give what the results in a folder say of their dataset."""
    if (folder / SUMMARY).is_file():
        yield files.read_object(folder / SUMMARY, files.MADE_AGAIN).get("dataset")
    if (folder / SHARPNESS).is_file():
        sharpness = files.read_object(folder / SHARPNESS, files.MADE_AGAIN)
        yield from (run.get("dataset") for run in sharpness.get("runs", ()))
