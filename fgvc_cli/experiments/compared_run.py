"""A finished run as a comparison reads it."""

from __future__ import annotations

import csv
import hashlib
import shlex
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fgvc_cli import files
from fgvc_cli.errors import FgvcError
from fgvc_cli.experiments.folder import FailedRun, read_failures
from fgvc_cli.experiments.study import STUDY_FILE, runs_of
from fgvc_cli.runs.folder import Run, find_run
from fgvc_cli.runs.results import TrainingSummary
from fgvc_cli.scoring.results import EvaluationSummary

PREDICTIONS, SUMMARY = "predictions.csv", "summary.json"


@dataclass(frozen=True)
class ComparedRun:
    """A finished run and its evaluation on one split.

    Attributes:
        run: its folder.
        config: its settings by section, as in `config.toml`.
        summary: of its training.
        evaluation: its metrics on the split.
        correct: whether each image was classified rightly, by key.
    """

    run: Run
    config: Mapping[str, Any]
    summary: TrainingSummary
    evaluation: EvaluationSummary
    correct: Mapping[str, bool]

    @property
    def backbone(self) -> str:
        """The backbone's name."""
        return str(self.summary.components["backbone"]["name"])

    @property
    def head(self) -> str:
        """The head's name."""
        return str(self.summary.components["head"]["name"])

    @property
    def optimizer(self) -> str:
        """The optimizer's name, and what it is built over: `sam over sgd`."""
        component = self.summary.components["optimizer"]
        return f"{component['name']} over {component['base']['name']}" if "base" in component else component["name"]

    @property
    def seed(self) -> int:
        """Of weights, order, augmentation and dropout."""
        return int(self.summary.seed)

    @property
    def minutes(self) -> float:
        """Training time, over all resumptions."""
        return self.summary.seconds / 60

    @property
    def images_per_second(self) -> float | None:
        """In training: the median over the epochs; None without any."""
        return self.summary.images_per_second

    @property
    def parameters(self) -> dict[str, int]:
        """Numbers of weights of "backbone" and "head", and the "total"."""
        return {part: int(self.summary.parameters[part]) for part in ("backbone", "head", "total")}

    @property
    def device(self) -> str:
        """What it was trained on."""
        return self.summary.device

    @property
    def version(self) -> str:
        """Of fgvc, that trained it."""
        return str(self.summary.versions["fgvc-cli"])

    @property
    def top1(self) -> float:
        """Share of the images that were classified rightly."""
        return float(self.evaluation.top1)  # type: ignore[arg-type]  # None and text are refused by `_check`

    @property
    def macro_f1(self) -> float | None:
        """F1, averaged over the classes that the split has images of."""
        return self.evaluation.macro_f1

    @property
    def precision(self) -> str:
        """What it was evaluated in: "fp32" or "bf16"."""
        return self.evaluation.precision

    @property
    def source(self) -> tuple[str, str]:
        """The dataset and the split that it was evaluated on."""
        return str(self.evaluation.dataset["name"]), self.evaluation.split

    @property
    def described(self) -> str:
        """The images in a phrase: "test of demo, drawn (seed 0): 300 images, 12 classes"."""
        return f"{self.evaluation.images_text}: {self.evaluation.images} images, {self.evaluation.classes} classes"

    @property
    def notes(self) -> list[str]:
        """What a person should know before using the figures."""
        return list(self.evaluation.notes)

    @cached_property
    def images(self) -> str:
        """What images it was evaluated on, and into which classes: equal for runs that can be compared by image."""
        keys = sorted([*self.correct, *self.evaluation.failures])
        classes = sorted(row.name for row in self.evaluation.per_class)
        return hashlib.sha256("\0".join([*keys, "", *classes]).encode()).hexdigest()

    def correct_at(self, keys: Sequence[str]) -> np.ndarray:
        """Return whether the images with those keys, N, were classified rightly: bool N."""
        return np.array([self.correct[key] for key in keys], dtype=bool)


OF_THE_RUN = (
    "backbone", "head", "optimizer", "seed", "minutes", "images_per_second", "parameters", "device", "version",
)  # fmt: skip
OF_THE_EVALUATION = ("top1", "macro_f1", "precision", "source", "described", "notes", "images")


def read_run(run: Run, evaluation: Path) -> ComparedRun:
    """Read a finished run, and the folder of its evaluation.

    Raises:
        FgvcError: a file is missing or damaged, or the evaluation's files do not belong together.
    """
    try:
        config = tomllib.loads(run.config_file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FgvcError(f"{run.config_file} cannot be read ({error}): restore it, or leave the run out.") from error
    settings = {section: table for section, table in config.items() if isinstance(table, dict)}
    evaluated = EvaluationSummary.read(evaluation / SUMMARY)
    found = ComparedRun(run, settings, run.summary, evaluated, _correct(evaluation / PREDICTIONS))
    _check(found, OF_THE_RUN, run.summary_file, "Restore it, or train again.")
    _check(found, OF_THE_EVALUATION, evaluation / SUMMARY, files.MADE_AGAIN)
    right = sum(found.correct.values())
    if len(found.correct) != evaluated.images or abs(right - found.top1 * len(found.correct)) > 0.5:
        raise FgvcError(
            f"{evaluation / PREDICTIONS} does not belong to {SUMMARY} beside it: it has {right} of "
            f"{len(found.correct)} images right. Delete both, and they are made again."
        )
    return found


def _check(run: ComparedRun, names: Sequence[str], file: Path, remedy: str) -> None:
    """Raise `FgvcError` if a file lacks what one of these properties is made of, or has it otherwise than it should."""
    for name in names:
        try:
            getattr(run, name)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            what = name.replace("_", " ")
            raise FgvcError(f"{file} is damaged: it does not tell the {what}. {remedy}") from error


def _correct(path: Path) -> dict[str, bool]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = csv.DictReader(file)
            if missing := {"key", "correct"} - set(rows.fieldnames or ()):
                raise ValueError(f"it has no column {min(missing)}")
            return {row["key"]: row["correct"] == "1" for row in rows}
    except (OSError, ValueError, csv.Error) as error:
        raise FgvcError(f"{path} cannot be read ({error}). {files.MADE_AGAIN}") from error


SPLITS = ("test", "val")
"""What runs are compared on where a person says nothing: the first that a run's dataset has."""


@dataclass(frozen=True)
class Collected:
    """What is to be compared.

    Attributes:
        runs: finished ones, in the order in which they were named, each once.
        unfinished: of studies: those that were interrupted.
        failed: of studies: those that cannot be trained.
        study: the folder of the study that was named, if that was all.
    """

    runs: tuple[Run, ...]
    unfinished: tuple[Run, ...] = ()
    failed: tuple[FailedRun, ...] = ()
    study: Path | None = None


@dataclass
class _Found:
    runs: dict[Path, Run] = field(default_factory=dict)
    unfinished: list[Run] = field(default_factory=list)
    failed: list[FailedRun] = field(default_factory=list)
    studies: list[Path] = field(default_factory=list)


def collect(paths: Sequence[Path]) -> Collected:
    """Return the runs that paths name: run folders, model files, and folders of studies for all of theirs.

    Raises:
        FgvcError: one is no such thing, or not finished, or a study has no finished run.
    """
    found = _Found()
    for path in paths:
        folder = path.parent if path.name == STUDY_FILE else path
        if (folder / STUDY_FILE).is_file():
            _take_study(folder, found)
        else:
            run = find_run(path)
            if not run.finished:
                raise FgvcError(f"{run.path} is not finished: go on with fgvc train --resume {run.path}.")
            found.runs.setdefault(run.path.resolve(), run)
    study = found.studies[0] if len(paths) == len(found.studies) == 1 else None
    return Collected(tuple(found.runs.values()), tuple(found.unfinished), tuple(found.failed), study)


def read(runs: Sequence[Run], split: str | None, evaluate: Callable[[Run, str | None], Path]) -> Iterator[ComparedRun]:
    """Give the runs with what they said of each image of a split.

    Args:
        runs: finished ones.
        split: its name; None: "test", or "val" for a run whose dataset has no test split.
        evaluate: evaluates a run whose evaluation is missing, and returns the folder of the results.

    Raises:
        FgvcError: a file is damaged.
    """
    for run in runs:
        names = SPLITS if split is None else (split,)
        folders = [run.evaluation(name) for name in names]
        there = [folder for folder in folders if all((folder / name).is_file() for name in (SUMMARY, PREDICTIONS))]
        has_test = run.summary.test is not None
        usable = [folder for folder in there if split is not None or folder.name == "test" or not has_test]
        yield read_run(run, usable[0] if usable else evaluate(run, split))


def _take_study(folder: Path, found: _Found) -> None:
    found.studies.append(folder)
    runs = runs_of(folder)
    finished = [run for run in runs if run.finished]
    failed = read_failures(folder)
    if not finished:
        reason = f" The first failed: {next(iter(failed.values())).reason}" if failed else ""
        command = f"fgvc sweep --resume {shlex.quote(str(folder))}"
        raise FgvcError(f"{folder}: no run of the study is finished yet: {command}.{reason}")
    for run in finished:
        found.runs.setdefault(run.path.resolve(), run)
    found.unfinished += [run for run in runs if not run.finished and run.name not in failed]
    found.failed += [each for name, each in failed.items() if name not in {run.name for run in finished}]
