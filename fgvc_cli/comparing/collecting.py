"""From what a person names, runs and studies, to runs with an evaluation on one split."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fgvc_cli.comparing.compared_run import PREDICTIONS, SUMMARY, ComparedRun, read_run
from fgvc_cli.errors import FgvcError
from fgvc_cli.runs.folder import RunFolder, find_run
from fgvc_cli.studies.failures import FailedRun, read_failures
from fgvc_cli.studies.places import STUDY_FILE, runs_of

SPLITS = ("test", "val")
"""What runs are compared on where a person says nothing: the first that a run's data set has."""


@dataclass(frozen=True)
class Collected:
    """What is to be compared.

    Attributes:
        runs: finished ones, in the order in which they were named, each once.
        unfinished: of studies: those that were interrupted.
        failed: of studies: those that cannot be trained.
        study: the folder of the study that was named, if that was all.
    """

    runs: tuple[RunFolder, ...]
    unfinished: tuple[RunFolder, ...] = ()
    failed: tuple[FailedRun, ...] = ()
    study: Path | None = None


@dataclass
class _Found:
    runs: dict[Path, RunFolder] = field(default_factory=dict)
    unfinished: list[RunFolder] = field(default_factory=list)
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


def read(
    runs: Sequence[RunFolder], split: str | None, evaluate: Callable[[RunFolder, str | None], Path]
) -> Iterator[ComparedRun]:
    """Give the runs with what they said of each image of a split.

    Args:
        runs: finished ones.
        split: its name; None: "test", or "val" for a run whose data set has no test split.
        evaluate: evaluates a run whose evaluation is missing, and returns the folder of the results.

    Raises:
        FgvcError: a file is damaged.
    """
    for run in runs:
        names = SPLITS if split is None else (split,)
        folders = [run.evaluation(name) for name in names]
        there = [folder for folder in folders if all((folder / name).is_file() for name in (SUMMARY, PREDICTIONS))]
        has_test = run.summary().get("test") is not None
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
