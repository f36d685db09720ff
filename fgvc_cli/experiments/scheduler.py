"""Train the runs of a study, several at a time, until all have ended or a signal arrives."""

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
from fgvc_cli.experiments.worker import Event, Failed, Finished, Progressed, Started, Task
from fgvc_cli.experiments.worker_pool import WorkerPool
from fgvc_cli.launch import usable_cores
from fgvc_cli.registry import Registry
from fgvc_cli.runs.results import TrainingSummary
from fgvc_cli.training.state import Interrupted, catch_signals

POLL_SECONDS = 0.25
"""Longest wait for an event before signals are checked."""
GPUS = "CUDA_VISIBLE_DEVICES"
MIN_FRACTION = 0.02
"""Fraction of a run after which its own speed is used to estimate the remaining time."""


class SweepCallback(Protocol):
    """Receives the progress of a sweep."""

    def planned(self, done: int, total: int) -> None:
        """Called first, with the number of runs that have ended already and of all runs."""

    def started(self, run: PlannedRun, event: Started) -> None:
        """A run starts or resumes."""

    def progressed(self, active: Mapping[str, Progressed], left: float | None) -> None:
        """Called several times a second with the progress of the active runs by title, and the seconds left."""

    def finished(self, run: PlannedRun, summary: TrainingSummary, seconds: float, left: float | None) -> None:
        """A run finished after `seconds`; `left` is the estimate for the remaining runs."""

    def failed(self, run: PlannedRun, reason: str) -> None:
        """A run failed; the others continue."""


@dataclass(frozen=True)
class SweepResult:
    """The names of the finished runs of a sweep, and the reasons of the failed ones, by name."""

    finished: tuple[str, ...]
    failed: dict[str, str]


@dataclass(frozen=True)
class Resources:
    """Resources of a sweep: runs trained at a time, device type, and whether downloads are forbidden.

    Runs that have started are resumed with changed data only if `allow_changed_data`.
    """

    jobs: int = 1
    device: str = "cpu"
    offline: bool = False
    allow_changed_data: bool = False

    def share(self, slot: int) -> tuple[int | None, dict[str, str]]:
        """Return the CPU threads of the run in a slot (None: no limit) and the variables that select its GPU.

        A run that trains alone is not limited.
        """
        if self.jobs == 1:
            return None, {}
        if self.device != "cuda":
            return max(1, usable_cores() // self.jobs), {}
        visible = [gpu for gpu in os.environ.get(GPUS, "").split(",") if gpu.strip()]
        gpus = visible or [str(number) for number in range(max(1, torch.cuda.device_count()))]
        return None, {GPUS: gpus[slot % len(gpus)]}


@dataclass
class Eta:
    """Estimates the remaining time of a sweep from the durations of finished runs, by combination.

    A run is expected to take as long as the same combination took with other seeds, or the mean of all combinations.
    """

    seconds: dict[str, list[float]] = field(default_factory=dict)

    def add(self, combination: str, seconds: float) -> None:
        """Add the duration of a finished run."""
        self.seconds.setdefault(combination, []).append(seconds)

    def left(self, waiting: Iterable[str], active: Mapping[str, tuple[str, float, float]], slots: int) -> float | None:
        """Return the seconds until all runs have ended, or None as long as no duration is known.

        Args:
            waiting: combinations of the runs that have not started.
            active: combination, seconds so far and fraction done of the active runs, by name.
            slots: number of runs trained at a time.
        """
        known = {combination: statistics.fmean(seconds) for combination, seconds in self.seconds.items()}
        for combination, seconds, fraction in active.values():
            if fraction >= MIN_FRACTION:
                known.setdefault(combination, seconds / fraction)
        if not known:
            return None
        mean = statistics.fmean(known.values())
        of_active = [
            max(0.0, (1 - done) * (seconds / done if done >= MIN_FRACTION else known.get(combination, mean)))
            for combination, seconds, done in active.values()
        ]
        of_waiting = sum(known.get(combination, mean) for combination in waiting)
        return max([(of_waiting + sum(of_active)) / slots, *of_active])


@dataclass
class _ActiveRun:
    """A run that is being trained."""

    run: PlannedRun
    since: float
    progress: Progressed = field(default_factory=lambda: Progressed(0.0))
    resumed_at: float = 0.0

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.since

    @property
    def fraction(self) -> float:
        """Fraction done of what was left when the run started or resumed."""
        return (self.progress.fraction - self.resumed_at) / max(1e-9, 1 - self.resumed_at)


def run_study(
    folder: StudyFolder,
    study: Study,
    resources: Resources,
    registry: Registry,
    callback: SweepCallback,
    retry_failed: bool = False,
) -> SweepResult:
    """Train the runs that are not finished; `retry_failed`: also those that failed before.

    Raises:
        Interrupted: a signal arrived; the states of the active runs are saved.
        FgvcError: another process is training the study, or the disk is full.
    """
    with folder.locked(), catch_signals() as interrupt, WorkerPool(resources.jobs, _modules(study, registry)) as pool:
        scheduler = _Scheduler(folder, study, resources, callback, pool, retry_failed)
        sent = 0
        while scheduler.waiting or pool.busy:
            stop = interrupt.number if interrupt else signal.SIGTERM if scheduler.disk_full else 0
            if stop and not sent:
                sent = stop
                scheduler.waiting.clear()
                pool.signal(stop)
            scheduler.start_waiting()
            for name, event in pool.events(POLL_SECONDS):
                scheduler.handle(name, event)
            scheduler.report_progress()
    if scheduler.disk_full:
        raise FgvcError(f"{scheduler.disk_full} Then resume the study (`resume={folder.path}`)")
    if sent:
        raise Interrupted("Interrupted; the states of the active runs are saved", folder.path, sent)
    return scheduler.result()


class _Scheduler:
    """The state of a sweep while it trains."""

    def __init__(
        self,
        folder: StudyFolder,
        study: Study,
        resources: Resources,
        callback: SweepCallback,
        pool: WorkerPool,
        retry_failed: bool,
    ) -> None:
        self.folder, self.study, self.resources, self.callback, self.pool = folder, study, resources, callback, pool
        self.runs = study.runs()
        open_states = ("started", "waiting", *(["failed"] if retry_failed else []))
        self.waiting = [run for run in self.runs if folder.state(run.name) in open_states]
        self.active: dict[str, _ActiveRun] = {}
        self.eta = Eta()
        self.disk_full = ""
        """Message of the run that found the disk full: it has not failed, since every other run would fail too."""
        for run in self.runs:
            if folder.run(run.name).finished:
                with suppress(FgvcError):  # the comparison reports damaged summaries
                    self.eta.add(run.combination.name, folder.run(run.name).summary.seconds)
        callback.planned(len(self.runs) - len(self.waiting), len(self.runs))

    def start_waiting(self) -> None:
        """Start runs as long as there are free slots."""
        while self.waiting and (slot := self.pool.free_slot) is not None:
            run = self.waiting.pop(0)
            self.folder.clear_failure(run)
            threads, environment = self.resources.share(slot)
            task = Task(
                self.folder.run(run.name).path, run.layers, self.study.recipe, self.resources.offline,
                self.folder.log(run.name), settings.current(), threads, environment,
                self.resources.allow_changed_data,
            )  # fmt: skip
            self.active[run.name] = _ActiveRun(run, time.monotonic())
            self.pool.start(run.name, task, slot)

    def handle(self, name: str, event: Event) -> None:
        """Handle an event of a run."""
        active = self.active[name]
        run = active.run
        if isinstance(event, Started):
            active.resumed_at = event.done / max(1, event.epochs)
            active.progress = Progressed(active.resumed_at, f"epoch {event.done}/{event.epochs}")
            active.since = time.monotonic()
            self.callback.started(run, event)
        elif isinstance(event, Progressed):
            active.progress = event
        else:
            del self.active[name]
        if isinstance(event, Finished):
            self.eta.add(run.combination.name, event.summary.seconds)
            self.callback.finished(run, event.summary, active.seconds, self._left())
        elif isinstance(event, Failed) and event.disk_is_full:
            self.disk_full = event.reason
        elif isinstance(event, Failed):
            self.folder.add_failure(run, event.reason)
            self.callback.failed(run, event.reason)

    def report_progress(self) -> None:
        """Pass the progress of the active runs to the callback."""
        self.callback.progressed({each.run.title: each.progress for each in self.active.values()}, self._left())

    def result(self) -> SweepResult:
        """Return the state of all runs."""
        names = [run.name for run in self.runs]
        failures = self.folder.failures()
        return SweepResult(
            tuple(name for name in names if self.folder.run(name).finished),
            {name: failures[name].reason for name in names if name in failures},
        )

    def _left(self) -> float | None:
        active = {n: (a.run.combination.name, a.seconds, a.fraction) for n, a in self.active.items()}
        return self.eta.left([run.combination.name for run in self.waiting], active, self.resources.jobs)


def _modules(study: Study, registry: Registry) -> Sequence[str]:
    """Return the modules to import once for all runs: this package's and those of built-in components.

    Those of other plugins are imported by each run alone, since an import may have side effects.
    """
    found = {registry.find(kind, name) for each in study.combinations for kind, name in each.components.items()}
    targets = {component.spec.target.partition(":")[0] for component in found if component.builtin}
    return ["fgvc_cli.experiments.worker", *sorted(targets)]
