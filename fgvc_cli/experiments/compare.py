"""Select runs, evaluate those that lack an evaluation, and compare them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from fgvc_cli.config.run_config import read_config
from fgvc_cli.errors import FgvcError
from fgvc_cli.experiments.compared_run import ComparedRun, read_run
from fgvc_cli.experiments.comparison import Comparison, compare
from fgvc_cli.experiments.folder import TRIAL, FailedRun, StudyFolder
from fgvc_cli.runs.folder import STUDY_FILE, Run, find_run
from fgvc_cli.scoring.results import PREDICTIONS, SUMMARY

SPLITS = ("test", "val")
"""Splits to compare on by default: the first that a run's dataset has."""

Evaluate = Callable[[Run, str | None], Path]
"""Evaluates a run on a split (None: the default one) and returns the folder of the results."""


@dataclass
class RunSelection:
    """Runs to compare.

    Attributes:
        runs: finished runs, each once, in the order given.
        unfinished: runs of studies that were interrupted.
        failed: runs of studies that failed.
        study: the study, if one study was given and nothing else.
    """

    runs: list[Run] = field(default_factory=list)
    unfinished: list[Run] = field(default_factory=list)
    failed: list[FailedRun] = field(default_factory=list)
    study: StudyFolder | None = None


def select_runs(paths: Sequence[Path]) -> RunSelection:
    """Return the runs at paths: run folders, model files, and folders of studies for all of their runs.

    Raises:
        FgvcError: a path is neither, a run is not finished, or a study has no finished run.
    """
    selection = RunSelection()
    runs: dict[Path, Run] = {}
    for path in paths:
        study = StudyFolder(path.parent if path.name == STUDY_FILE else path)
        if study.exists:
            found = _add_study(study, selection)
            selection.study = study if len(paths) == 1 else None
        else:
            found = [find_run(path)]
            if not found[0].finished:
                if not found[0].config_file.is_file():
                    raise FgvcError(f"{found[0].path} has a model, but no results of a training to compare")
                raise FgvcError(f"{found[0].path} is not finished; resume the run (`resume={found[0].path}`)")
        for run in found:
            runs.setdefault(run.path.resolve(), run)
    selection.runs = list(runs.values())
    return selection


def _add_study(study: StudyFolder, selection: RunSelection) -> list[Run]:
    """Return the finished runs of a study; add the others to the selection."""
    runs, failures = study.runs(), study.failures()
    finished = [run for run in runs if run.finished]
    if not finished:
        reason = f". The first failed: {next(iter(failures.values())).reason}" if failures else ""
        raise FgvcError(f"{study.path} has no finished run; resume the study (`resume={study.path}`){reason}")
    names = {run.name for run in finished}
    selection.unfinished += [run for run in runs if not run.finished and run.name not in failures]
    selection.failed += [each for name, each in failures.items() if name not in names and not TRIAL.match(name)]
    return finished


def read_runs(runs: Sequence[Run], split: str | None, evaluate: Evaluate) -> Iterator[ComparedRun]:
    """Read runs and evaluations on a split, evaluating runs that have none.

    The default is "test", else "val". Runs that did not score the test split, such as those of folds, use "val".

    Raises:
        FgvcError: a file is damaged.
    """
    for run in runs:
        wanted = "val" if split is None and _leaves_out_test(run) else split
        folders = [run.evaluation(name) for name in (SPLITS if wanted is None else (wanted,))]
        complete = [folder for folder in folders if all((folder / name).is_file() for name in (SUMMARY, PREDICTIONS))]
        has_test = run.summary.test is not None
        usable = [folder for folder in complete if wanted is not None or folder.name == "test" or not has_test]
        yield read_run(run, usable[0] if usable else evaluate(run, wanted))


def _leaves_out_test(run: Run) -> bool:
    """Return whether a run was trained with `train.score_test=false`."""
    try:
        return read_config(run.config_file)[0].get("train", {}).get("score_test") is False
    except FgvcError:  # reading the run will report it
        return False


def compare_selection(
    selection: RunSelection, split: str | None, evaluate: Evaluate, allow_changed_data: bool = False
) -> Comparison:
    """Compare the selected runs; see `read_runs` and `comparison.compare`."""
    runs = list(read_runs(selection.runs, split, evaluate))
    if selection.study is not None and (note := selection.study.search_note):
        runs = [replace(run, notes=[*run.notes, note]) for run in runs]
    return compare(runs, selection.failed, [run.name for run in selection.unfinished], allow_changed_data)


def evaluator(
    device: str = "auto",
    precision: str = "auto",
    batch_size: int = 32,
    workers: int = -1,
    allow_changed_data: bool = False,
) -> Evaluate:
    """Return a function that evaluates a run and writes the results to its folder."""

    def evaluate(run: Run, split: str | None) -> Path:
        from fgvc_cli.evaluation import evaluate as evaluation
        from fgvc_cli.evaluation.split_selection import SplitRequest, results_folder, select_split
        from fgvc_cli.registry import get_registry
        from fgvc_cli.scoring.model import InferenceSettings, load

        ready = load(run.model_file, InferenceSettings(device, precision, batch_size, workers))
        request = SplitRequest(split, allow_changed_data=allow_changed_data)
        selected = select_split(request, run.path, ready.classifier.class_names, get_registry())
        folder = results_folder(run.path, selected, None, force=False)
        return evaluation.evaluate(ready, selected, folder, f"{run.name}, {selected.split.name}").folder

    return evaluate
