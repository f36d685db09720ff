"""Train the runs of a study until all are done or the user stops."""

from __future__ import annotations

import os
import signal
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

import torch

from fgvc_cli import settings
from fgvc_cli.errors import FgvcError
from fgvc_cli.experiments.folder import StudyFolder
from fgvc_cli.experiments.study import PlannedRun, Study
from fgvc_cli.experiments.worker import Begun, Event, Failed, Finished, Moved, Task
from fgvc_cli.experiments.worker_pool import WorkerPool
from fgvc_cli.launch import usable_cores
from fgvc_cli.registry import Registry
from fgvc_cli.runs.results import TrainingSummary
from fgvc_cli.training.state import Interrupted, heard

TELLING = 0.02
"""Share of a run after which its pace says something."""


@dataclass
class Eta:
    """What runs take, learnt as they go on.

    A combination takes with one seed what it took with another; one that was never seen takes what the others take on
    average.

    Attributes:
        seconds: that finished runs took, by combination.
    """

    seconds: dict[str, list[float]] = field(default_factory=dict)

    def finished(self, combination: str, seconds: float) -> None:
        """Learn what a whole run took."""
        self.seconds.setdefault(combination, []).append(seconds)

    def left(
        self, waiting: Iterable[str], at_work: Mapping[str, tuple[str, float, float]], places: int
    ) -> float | None:
        """Return the seconds until all is done, or None as long as nothing is known.

        Args:
            waiting: the combinations of the runs that have not begun.
            at_work: of the runs at work, by name: combination, seconds so far and share done.
            places: runs that are trained at a time.
        """
        known = {combination: statistics.fmean(seconds) for combination, seconds in self.seconds.items()}
        for combination, seconds, share in at_work.values():
            if share >= TELLING:
                known.setdefault(combination, seconds / share)
        if not known:
            return None
        usual = statistics.fmean(known.values())
        begun = [
            max(0.0, (1 - share) * (seconds / share if share >= TELLING else known.get(combination, usual)))
            for combination, seconds, share in at_work.values()
        ]
        rest = sum(known.get(combination, usual) for combination in waiting)
        return max([(rest + sum(begun)) / places, *begun])


LOOK_EVERY = 0.25
"""Seconds that are waited at most for something to be told, before a signal is noticed."""
GPUS = "CUDA_VISIBLE_DEVICES"


class View(Protocol):
    """What a study reports to."""

    def planned(self, done: int, of: int) -> None:
        """So many of its runs are done already; called once, first."""

    def begun(self, run: PlannedRun, event: Begun) -> None:
        """A run begins or goes on."""

    def moved(self, at_work: Mapping[str, Moved], left: float | None) -> None:
        """The runs at work, by title, have come so far; so many seconds are left for the whole study."""

    def finished(self, run: PlannedRun, summary: TrainingSummary, seconds: float, left: float | None) -> None:
        """A run is done; it took so many seconds, and so many are left for the whole study."""

    def failed(self, run: PlannedRun, reason: str) -> None:
        """A run cannot be done, and the others go on."""


@dataclass(frozen=True)
class Outcome:
    """What became of a study's runs.

    Attributes:
        finished: names of the runs that are done.
        failed: why others cannot be done, by name.
    """

    finished: tuple[str, ...]
    failed: dict[str, str]


@dataclass(frozen=True)
class Means:
    """What a study may use.

    Attributes:
        jobs: runs that are trained at a time.
        device: the kind of device they compute on.
        offline: whether downloads are forbidden.
    """

    jobs: int = 1
    device: str = "cpu"
    offline: bool = False

    def share(self, place: int) -> tuple[int | None, dict[str, str]]:
        """Return the threads of a run in that place, and the variables that show it its GPU.

        With one run at a time it is as free as `fgvc train` would be.
        """
        if self.jobs == 1:
            return None, {}
        if self.device != "cuda":
            return max(1, usable_cores() // self.jobs), {}
        seen = [gpu for gpu in os.environ.get(GPUS, "").split(",") if gpu.strip()]
        gpus = seen or [str(number) for number in range(max(1, torch.cuda.device_count()))]
        return None, {GPUS: gpus[place % len(gpus)]}


@dataclass
class _AtWork:
    """A run that is being trained."""

    run: PlannedRun
    since: float
    moved: Moved = field(default_factory=lambda: Moved(0.0))
    begun_at: float = 0.0

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.since

    @property
    def share(self) -> float:
        """The share of what was left to do when it began that is done."""
        return (self.moved.share - self.begun_at) / max(1e-9, 1 - self.begun_at)


def run_study(
    folder: StudyFolder, study: Study, means: Means, registry: Registry, view: View, again: bool = False
) -> Outcome:
    """Train what is not trained yet.

    Args:
        folder: of the study.
        study: what it is.
        means: what may be used.
        registry: finds components.
        view: is told how far it is.
        again: whether runs that failed before are tried again.

    Returns:
        What became of all its runs.

    Raises:
        Interrupted: a signal came; the states of the runs at work are saved.
        FgvcError: another process works on the study, or the disk is full.
    """
    with folder.worked_on(), heard() as interrupt, WorkerPool(means.jobs, _modules(study, registry)) as crew:
        sweep = _Sweep(folder, study, means, view, crew, again)
        passed_on = 0
        while sweep.waiting or crew.busy:
            if interrupt and not passed_on:
                passed_on = interrupt.number
                sweep.waiting.clear()
                crew.signal(passed_on)
            sweep.begin()
            for name, event in crew.events(LOOK_EVERY):
                sweep.hear(name, event)
            if sweep.full and not passed_on:
                passed_on = signal.SIGTERM
                sweep.waiting.clear()
                crew.signal(passed_on)
            sweep.tell()
    if sweep.full:
        raise FgvcError(f"{sweep.full} Then go on with: {folder.resuming}")
    if passed_on:
        raise Interrupted(
            f"Interrupted: what was trained is saved. Go on with: {folder.resuming}", folder.path, passed_on
        )
    return sweep.outcome()


class _Sweep:
    """The runs of a study while they are trained."""

    def __init__(
        self, folder: StudyFolder, study: Study, means: Means, view: View, crew: WorkerPool, again: bool
    ) -> None:
        self.folder, self.study, self.means, self.view, self.crew = folder, study, means, view, crew
        self.runs = study.runs()
        wanted = ("begun", "waiting", *(["failed"] if again else []))
        self.waiting = [run for run in self.runs if folder.state(run.name) in wanted]
        self.at_work: dict[str, _AtWork] = {}
        self.pace = Eta()
        self.full = ""
        """What the run said that found the disk full: no fault of its own, so it has not failed."""
        for run in self.runs:
            if folder.run(run.name).finished:
                with suppress(FgvcError, KeyError, TypeError, ValueError):  # the comparison tells what is damaged
                    self.pace.finished(run.combination.name, folder.run(run.name).summary.seconds)
        view.planned(len(self.runs) - len(self.waiting), len(self.runs))

    def begin(self) -> None:
        """Start as many runs as there are places for."""
        while self.waiting and (place := self.crew.free_place) is not None:
            run = self.waiting.pop(0)
            self.folder.forget_failure(run)
            threads, environment = self.means.share(place)
            layers, path = run.layers, self.folder.run(run.name).path
            log, force = self.folder.log(run.name), settings.current()
            task = Task(path, layers, self.study.recipe, self.means.offline, log, force, threads, environment)
            self.at_work[run.name] = _AtWork(run, time.monotonic())
            self.crew.start(run.name, task, place)

    def hear(self, name: str, event: Event) -> None:
        """Take in what a run told."""
        at_work = self.at_work[name]
        run = at_work.run
        if isinstance(event, Begun):
            at_work.begun_at = event.done / max(1, event.epochs)
            at_work.moved = Moved(at_work.begun_at, f"epoch {event.done}/{event.epochs}")
            at_work.since = time.monotonic()
            self.view.begun(run, event)
        elif isinstance(event, Moved):
            at_work.moved = event
        else:
            del self.at_work[name]
        if isinstance(event, Finished):
            self.pace.finished(run.combination.name, event.summary.seconds)
            self.view.finished(run, event.summary, at_work.seconds, self._left())
        elif isinstance(event, Failed) and event.disk_is_full:
            self.full = event.reason
        elif isinstance(event, Failed):
            self.folder.note_failure(run, event.reason)
            self.view.failed(run, event.reason)

    def tell(self) -> None:
        """Say how far the runs at work are."""
        self.view.moved({each.run.title: each.moved for each in self.at_work.values()}, self._left())

    def outcome(self) -> Outcome:
        """Say what became of all runs."""
        names = [run.name for run in self.runs]
        failures = self.folder.failures()
        return Outcome(
            tuple(name for name in names if self.folder.run(name).finished),
            {name: failures[name].reason for name in names if name in failures},
        )

    def _left(self) -> float | None:
        at_work = {n: (w.run.combination.name, w.seconds, w.share) for n, w in self.at_work.items()}
        return self.pace.left([run.combination.name for run in self.waiting], at_work, self.means.jobs)


def _modules(study: Study, registry: Registry) -> Sequence[str]:
    """Return the modules that every run imports: this package's, and those of built-in components.

    What a stranger's module does when it is imported is for each run to bear alone.
    """
    found = {registry.find(kind, name) for each in study.combinations for kind, name in each.components.items()}
    targets = {component.spec.target.partition(":")[0] for component in found if component.builtin}
    return ["fgvc_cli.experiments.worker", *sorted(targets)]
