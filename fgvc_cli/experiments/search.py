"""Search the settings of a study with Optuna: its trials are runs, and their folders are its only state."""

from __future__ import annotations

import logging
import signal
import warnings
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fgvc_cli import files
from fgvc_cli.config.run_config import read_config
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.experiments.folder import PRUNED, TRIAL, StudyFolder
from fgvc_cli.experiments.spaces import Space, spaces_of, with_values
from fgvc_cli.experiments.study import Combination, PlannedRun, Study
from fgvc_cli.formatting import counted, percent
from fgvc_cli.runs.folder import Run
from fgvc_cli.runs.results import EpochMetrics
from fgvc_cli.training.callbacks import Callback
from fgvc_cli.training.state import Interrupted

if TYPE_CHECKING:
    import optuna

logger = logging.getLogger(__name__)

CELL = "cell"
"""Name of the combination among the parameters of a trial."""
State = Literal["finished", "pruned", "failed", "started"]


def require_optuna() -> None:
    """Raise `FgvcError` if Optuna is not installed."""
    try:
        import optuna
    except ImportError as error:
        raise FgvcError('A search needs Optuna: pip install "fgvc-cli[search]"') from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


@dataclass(frozen=True)
class Trial:
    """A trial that has started.

    Attributes:
        number: from 1.
        run: its run; without a folder if it failed before it started to train.
        cell: name of its combination.
        state: "started" if it is being trained or was interrupted.
        values: of the settings that are searched, by dotted name; empty if they are unknown.
        curve: validation top-1 by epoch.
        top1: validation top-1 of the best epoch, if it finished.
        loss: validation loss of that epoch.
    """

    number: int
    run: Run
    cell: str
    state: State
    values: Mapping[str, Any] = field(default_factory=dict)
    curve: Mapping[int, float] = field(default_factory=dict)
    top1: float | None = None
    loss: float | None = None


@dataclass(frozen=True)
class Search:
    """The search of a study in its folder.

    Attributes:
        study: with spaces among its settings.
        folder: of the study.
        epochs: of a trial, as a pruner needs to know.
        retry: failed runs to train again, with the numbers of the claims that say so.
    """

    study: Study
    folder: StudyFolder
    epochs: int = 1
    retry: Mapping[str, int] = field(default_factory=dict)

    @cached_property
    def cells(self) -> dict[str, tuple[Combination, list[Space]]]:
        """The combinations, with the spaces of the settings that apply to them, by name."""
        shared = {space.path: space for space in spaces_of(self.study.shared)}
        return {
            each.name: (each, list({**shared, **{space.path: space for space in spaces_of(each.settings)}}.values()))
            for each in self.study.combinations
        }

    def trials(self) -> list[Trial]:
        """Return the trials that have started, by number."""
        failed = self.folder.failures()
        names = {run.name for run in self.folder.trials()} | {name for name in failed if TRIAL.match(name)}
        found = [trial for name in names if (trial := self._trial(name, name in failed)) is not None]
        return sorted(found, key=lambda trial: trial.number)

    def next_runs(self, room: int, active: Collection[str]) -> list[PlannedRun]:
        """Return up to `room` more runs to train now: trials, then, once all have ended, those of the best one.

        Args:
            room: number of runs.
            active: names of runs that are being trained.

        Raises:
            FgvcError: no trial is finished.
        """
        assert self.study.search is not None
        if self.has_winner:
            return self._open_winners(active)
        trials = self.trials()
        interrupted = [each for each in trials if self._is_open(each) and each.run.name not in active]
        runs = [
            self._planned(each.number, each.cell, each.values or self._ask(each.number, trials, each.cell)[1])
            for each in interrupted
        ][:room]
        taken = {trial.number for trial in trials} | {int(m[1]) for name in active if (m := TRIAL.match(name))}
        while len(runs) < room and len(taken) < self.study.search.trials:
            number = next(number for number in count(1) if number not in taken)
            taken.add(number)
            runs.append(self._planned(number, *self._ask(number, trials)))
        if runs or any(TRIAL.match(name) for name in active):
            return runs
        return self._open_winners(active)

    @property
    def has_winner(self) -> bool:
        """Whether the best settings have been trained: the test split was scored, so no trial may follow."""
        return bool(self.folder.runs())

    def check_trials(self) -> None:
        """Raise `UsageError` if the study wants more trials after the best settings have been trained."""
        assert self.study.search is not None
        numbers = {trial.number for trial in self.trials()}
        if self.has_winner and len(numbers) < self.study.search.trials:
            raise UsageError(
                f"`search.trials={self.study.search.trials}`: the best of {counted(len(numbers), 'trial')} has been "
                f"trained and scored on the test split; for more trials, start a new study with "
                f"`config={self.folder.study_file}`"
            )

    def _is_open(self, trial: Trial) -> bool:
        return trial.state == "started" or (trial.state == "failed" and self._is_retried(trial.run.name))

    def _is_retried(self, name: str) -> bool:
        """Return whether a failed run is to be trained again, and has not been claimed since."""
        record = self.folder.record(name)
        return record is not None and self.retry.get(name) == record.number

    def _open_winners(self, active: Collection[str]) -> list[PlannedRun]:
        return [
            run
            for run in self.winners()
            if run.name not in active and (self.folder.state(run.name) != "failed" or self._is_retried(run.name))
        ]

    def ended(self) -> int:
        """Return the number of trials and runs of the best one that have ended and are not retried."""
        failed = [name for name in self.folder.failures() if not TRIAL.match(name) and not self._is_retried(name)]
        finished = [run.name for run in self.folder.runs() if run.finished]
        trials = [each for each in self.trials() if self.has_winner or not self._is_open(each)]
        return len(trials) + len({*failed, *finished})

    def winners(self) -> list[PlannedRun]:
        """Return the runs of the best trial's settings that are not finished, each with a seed that no trial had.

        Raises:
            FgvcError: no trial is finished.
        """
        best = self.best()
        if best is None:
            reasons = [each.reason for name, each in self.folder.failures().items() if TRIAL.match(name)]
            raise FgvcError(
                f"No trial of the search is finished{f'; the first failed: {reasons[0]}' if reasons else ''}"
            )
        combination, _ = self.cells[best.cell]
        layers = self._layers(best.cell, best.values)
        runs = [
            PlannedRun(f"{best.cell}-seed{seed}", combination, seed, [*layers, {"train": {"seed": seed}}])
            for seed in self.study.winner_seeds
        ]
        return [run for run in runs if not self.folder.run(run.name).finished]

    def best(self) -> Trial | None:
        """Return the finished trial with the highest validation top-1, then the lowest loss, then the lowest number."""
        finished = [trial for trial in self.trials() if trial.top1 is not None]
        return min(finished, key=lambda trial: (-(trial.top1 or 0.0), trial.loss or 0.0, trial.number), default=None)

    def note(self) -> str:
        """Return a line on the trials and the best one."""
        trials, best = self.trials(), self.best()
        if best is None:
            return ""
        of_state = {state: sum(trial.state == state for trial in trials) for state in ("pruned", "failed")}
        ended = ", ".join(f"{number} {state}" for state, number in of_state.items() if number)
        values = ", ".join(f"{name} {value}" for name, value in best.values.items())
        of_trials = f"{counted(len(trials), 'trial')}{f' ({ended})' if ended else ''}"
        return (
            f"Chosen from {of_trials} on validation data: trial {best.number}, {best.cell}, val top-1 "
            f"{percent(best.top1)}, {values}. Trained again with seeds that no trial had; the test split was scored "
            "for these runs only."
        )

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield a CSV record for each trial."""
        for trial in self.trials():
            last = max(trial.curve.values(), default=None)
            yield {
                "trial": trial.number, "cell": trial.cell, "state": trial.state, "epochs": len(trial.curve),
                "val_top1": last if trial.top1 is None else trial.top1, **trial.values,
            }  # fmt: skip

    def should_prune(self, name: str) -> bool:
        """Return whether the pruner stops a trial after its last epoch."""
        trials = self.trials()
        number = next((trial.number for trial in trials if trial.run.name == name), 0)
        if not number:
            return False
        study = self._told(trials, number)
        return bool(study.pruner.prune(study, study.trials[number - 1]))

    def _planned(self, number: int, cell: str, values: Mapping[str, Any]) -> PlannedRun:
        """Return the run of a trial. The test split is scored for the best settings only."""
        seed = self.study.seeds[0]
        layers = [*self._layers(cell, values), {"train": {"seed": seed, "score_test": False}}]
        return PlannedRun(f"trial-{number:04d}-{cell}", self.cells[cell][0], seed, layers, trial=number)

    def _layers(self, cell: str, values: Mapping[str, Any]) -> list[Any]:
        settings = (self.study.shared, self.cells[cell][0].settings)
        return [with_values(layer, lambda path: values.get(".".join(path))) for layer in settings]

    def _trial(self, name: str, has_failed: bool) -> Trial | None:
        match, run = TRIAL.match(name), self.folder.run(name)
        if match is None or match[2] not in self.cells:
            return None
        number, cell, spaces = int(match[1]), match[2], self.cells[match[2]][1]
        values: dict[str, Any] = {}
        try:
            document = read_config(run.config_file)[0]
            values = {space.name: _at(document, space.path) for space in spaces}
            curve = {line.epoch: line.val.top1 for line in run.metrics if line.val is not None}
            if run.finished:
                val = run.summary.val
                top1, loss = (None, None) if val is None else (val.top1, val.loss)
                return Trial(number, run, cell, "finished", values, curve, top1, loss)
        except (FgvcError, KeyError) as error:
            logger.debug(f"{name}: {error}")
            return Trial(number, run, cell, "failed", values)
        pruned = self.folder.is_pruned(name)
        return Trial(number, run, cell, "pruned" if pruned else "failed" if has_failed else "started", values, curve)

    def _ask(self, number: int, trials: list[Trial], cell: str = "") -> tuple[str, dict[str, Any]]:
        """Return the combination and the values of a trial, which follow from its number and the other trials.

        A trial that failed before it wrote its values keeps its combination, `cell`.
        """
        trial = self._told(trials, number).ask()
        if not cell and len(self.cells) > 1:
            cell = str(trial.suggest_categorical(CELL, list(self.cells)))
        cell = cell or next(iter(self.cells))
        return cell, {
            space.name: trial._suggest(self._parameter(cell, space), space.distribution)
            for space in self.cells[cell][1]
        }

    def _parameter(self, cell: str, space: Space) -> str:
        """Return the name of a space for Optuna: combinations share one if their spaces are equal."""
        same = all(space in spaces for _, spaces in self.cells.values())
        return space.name if same else f"{cell}: {space.name}"

    def _told(self, trials: list[Trial], number: int) -> optuna.Study:
        """Return an Optuna study that knows these trials, with a sampler seeded for trial `number`."""
        import optuna
        from optuna.distributions import CategoricalDistribution
        from optuna.trial import TrialState, create_trial

        require_optuna()
        assert self.study.search is not None
        seed = (self.study.seeds[0] * 1_000_003 + number) % 2**32
        random = self.study.search.sampler == "random"
        study = optuna.create_study(
            study_name="fgvc",  # Hyperband assigns brackets by it
            direction="maximize",
            sampler=optuna.samplers.RandomSampler(seed)
            if random
            else optuna.samplers.TPESampler(seed=seed, constant_liar=True),
            pruner=self._pruner(),
        )
        states = {
            "finished": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL,
            "started": TrialState.RUNNING,
        }  # fmt: skip
        by_number = {trial.number: trial for trial in trials}
        for each in range(1, max(by_number, default=0) + 1):
            trial = by_number.get(each)
            if trial is None or (not trial.values and trial.state == "failed"):
                study.add_trial(create_trial(state=TrialState.FAIL))
                continue
            spaces = {self._parameter(trial.cell, space): space for space in self.cells[trial.cell][1]}
            choose = {CELL: CategoricalDistribution(list(self.cells))} if len(self.cells) > 1 else {}
            params = {name: trial.values[space.name] for name, space in spaces.items()}
            try:
                told = create_trial(
                    state=TrialState.FAIL if trial.state == "finished" and trial.top1 is None else states[trial.state],
                    value=trial.top1,
                    params={**({CELL: trial.cell} if choose else {}), **params},
                    distributions={**choose, **{name: space.distribution for name, space in spaces.items()}},
                    intermediate_values=dict(trial.curve),
                )
            except ValueError:  # the space was edited, and no longer has its values
                told = create_trial(state=TrialState.FAIL)
            study.add_trial(told)
        return study

    def _pruner(self) -> optuna.pruners.BasePruner:
        from optuna import pruners

        assert self.study.search is not None
        if self.study.search.pruner == "median":
            return pruners.MedianPruner()
        if self.study.search.pruner == "hyperband":
            return pruners.HyperbandPruner(min_resource=1, max_resource=self.epochs, reduction_factor=3)
        return pruners.NopPruner()


def write_trials(folder: Path, search: Search) -> Path:
    """Write the CSV file of the trials, and return it."""
    records = list(search.records())
    columns = list(dict.fromkeys(column for record in records for column in record))
    files.write_csv(folder / "trials.csv", columns, ([record.get(column) for column in columns] for record in records))
    return folder / "trials.csv"


def _at(document: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    value: Any = document
    for name in path:
        value = value[name]
    return value


def pruning(folder: StudyFolder, run: Run) -> list[Callback]:
    """Return the callback that prunes a run, if it is a trial of a search with a pruner."""
    if not TRIAL.match(run.name):
        return []
    from fgvc_cli.experiments.planning import SweepRequest, plan
    from fgvc_cli.registry import get_registry

    study = plan(SweepRequest(file=folder.study_file), get_registry())
    if study.search is None or study.search.pruner == "none":
        return []
    return [_Pruning(Search(study, folder), run)]


class _Pruning(Callback):
    """Stops a trial after an epoch if it is pruned, and marks its folder."""

    def __init__(self, search: Search, run: Run) -> None:
        self.search, self.run = search, run

    def on_train_start(self, run: Any, job: Any) -> None:  # noqa: ARG002
        self.search = replace(self.search, epochs=job.config.train.epochs)

    def on_epoch_end(self, metrics: EpochMetrics, is_best: bool) -> None:  # noqa: ARG002
        if metrics.val is None or metrics.epoch >= self.search.epochs or not self.search.should_prune(self.run.name):
            return
        files.write_json(self.run.path / PRUNED, {"epoch": metrics.epoch, "val_top1": metrics.val.top1})
        logger.info(f"pruned after epoch {metrics.epoch}")
        raise Interrupted("Pruned", self.run.path, signal.SIGTERM)
