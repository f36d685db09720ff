"""The whole of `fgvc compare`: from what a person names to a comparison and its files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fgvc_cli.comparing import files
from fgvc_cli.comparing.collecting import Collected, collect, read
from fgvc_cli.comparing.comparison import Comparison, compare, groups_of, in_order
from fgvc_cli.display import console
from fgvc_cli.runs.folder import RunFolder
from fgvc_cli.runs.new_folder import choose_new_folder
from fgvc_cli.studies.places import COMPARISON

FOLDER = "comparison"
"""Where comparisons go that are given no folder, in the current one."""

Evaluate = Callable[[RunFolder, str | None], Path]
"""Evaluates a run on a split (None: test, or what comes nearest), and returns the folder of the results."""


@dataclass(frozen=True)
class Prepared:
    """What will be compared, and where the results go."""

    collected: Collected
    folder: Path


@dataclass(frozen=True)
class Compared:
    """A comparison, and the files that it was written to."""

    comparison: Comparison
    written: Sequence[Path]


def prepare(paths: Sequence[Path], out: Path | None, force: bool, sort: str, group: str) -> Prepared:
    """Find the runs, and look at everything else that was asked for, before any run is evaluated.

    Raises:
        UsageError: there is no such order or group, or `out` is taken.
        FgvcError: there is no such run.
    """
    in_order([], sort)
    groups_of([], group)
    collected = collect(paths)
    if out is None and collected.study is not None:
        return Prepared(collected, collected.study / COMPARISON)
    return Prepared(collected, choose_new_folder(out, force, FOLDER, "the comparison"))


def of_study(folder: Path) -> Prepared:
    """Find the runs of a study, whose comparison is kept in its folder."""
    return Prepared(collect([folder]), folder / COMPARISON)


def run(prepared: Prepared, split: str | None, evaluate: Evaluate) -> Compared:
    """Compare, and write the files.

    Raises:
        FgvcError: a run is damaged, cannot be evaluated, or the files cannot be written.
    """
    collected = prepared.collected
    runs = list(read(collected.runs, split, evaluate))
    comparison = compare(runs, collected.failed, [each.name for each in collected.unfinished])
    return Compared(comparison, files.write(prepared.folder, comparison))


def evaluator(device: str = "auto", precision: str = "auto", batch_size: int = 32, workers: int = -1) -> Evaluate:
    """Return what evaluates a run as `fgvc evaluate` does, with a bar."""

    def evaluate(run: RunFolder, split: str | None) -> Path:
        from fgvc_cli.evaluation.computing import Computing
        from fgvc_cli.evaluation.evaluating import prepare
        from fgvc_cli.evaluation.request import EvaluationRequest
        from fgvc_cli.evaluation.subject import SubjectRequest
        from fgvc_cli.registry import get_registry

        computing = Computing(device, precision, batch_size, workers)
        request = EvaluationRequest([run.model_file], SubjectRequest(split), computing)
        prepared = prepare(request, get_registry())
        images = prepared.subject.split
        with console.progress(f"{run.name}, {images.name}", len(images)) as bar:
            return prepared.run(bar.advance).folder

    return evaluate
