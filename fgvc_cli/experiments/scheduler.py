"""Train the runs of a study with a launcher, until all have ended or a signal arrives."""

from __future__ import annotations

import logging
import signal
import statistics
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import Protocol

from fgvc_cli import settings
from fgvc_cli._version import __version__
from fgvc_cli.contracts import Launcher, LaunchRun, LaunchStudy, RunEnded
from fgvc_cli.errors import FgvcError
from fgvc_cli.experiments.claims import Record, Watch, claim_file
from fgvc_cli.experiments.folder import TRIAL, StudyFolder
from fgvc_cli.experiments.study import PlannedRun, Study
from fgvc_cli.experiments.worker import FolderCheck, Task, disk_is_full
from fgvc_cli.registry import Registry
from fgvc_cli.runs.results import TrainingSummary
from fgvc_cli.training.state import Interrupted, catch_signals

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.25
"""Longest wait for a run to end before signals are checked."""
READS_PER_SECOND = 50
"""Claims read per second, at most: they may be on a network file system."""
EVERY_RUN = ("fgvc_cli.experiments.worker", "matplotlib.backends.backend_agg", "matplotlib.figure", "sklearn.metrics")
"""Modules that every run imports; the last three, for its figures and metrics, take 1.8 s of CPU time."""
MIN_FRACTION = 0.02
"""Fraction of a run after which its own speed is used to estimate the remaining time."""


DRAWN_AT_ONCE = 8
"""Runs of a source that are trained at a time by a launcher without a limit."""

Source = Callable[[int, Sequence[str]], list[PlannedRun]]
"""Gives up to a number of runs to train now, given the names of those that are being trained; none: when those have
ended, there are no more."""


class SweepCallback(Protocol):
    """Receives the progress of a sweep."""

    def planned(self, done: int, total: int) -> None:
        """Called first, with the number of runs that have ended already and of all runs."""

    def started(self, run: PlannedRun, epochs: int, done: int) -> None:
        """A run of `epochs` epochs starts, or resumes after `done` of them."""

    def progressed(self, active: Mapping[str, Record], left: float | None) -> None:
        """Called several times a second with the progress of the active runs by title, and the seconds left."""

    def finished(self, run: PlannedRun, summary: TrainingSummary, seconds: float, left: float | None) -> None:
        """A run finished after `seconds`; `left` is the estimate for the remaining runs."""

    def failed(self, run: PlannedRun, reason: str) -> None:
        """A run failed; the others continue."""

    def pruned(self, run: PlannedRun, epochs: int) -> None:
        """A trial of a search was stopped after some epochs, as a poor one."""


@dataclass(frozen=True)
class SweepResult:
    """The names of the finished runs of a sweep, and the reasons of the failed ones, by name."""

    finished: tuple[str, ...]
    failed: dict[str, str]


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


@dataclass(frozen=True)
class RunOptions:
    """How runs are trained: without downloads, and resumed although the data changed."""

    offline: bool = False
    allow_changed_data: bool = False


@dataclass
class _ActiveRun:
    """A run that is being trained.

    Attributes:
        token: of our launch; empty if another machine trains it.
        watch: of the claim to it, if another machine trains it.
        record: what its process last said; None until it has claimed the run.
    """

    run: PlannedRun
    token: str = ""
    watch: Watch | None = None
    record: Record | None = None
    since: float = 0.0

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.since

    @property
    def fraction(self) -> float:
        """Fraction done of what was left when the run started or resumed."""
        if self.record is None or not self.record.epochs:
            return 0.0
        resumed_at = self.record.done / self.record.epochs
        return (self.record.fraction - resumed_at) / max(1e-9, 1 - resumed_at)


def run_study(
    folder: StudyFolder,
    study: Study,
    launcher: Launcher,
    registry: Registry,
    callback: SweepCallback,
    options: RunOptions,
    retry_failed: bool = False,
    source: Source | None = None,
) -> SweepResult:
    """Train the runs that are not finished; `retry_failed`: also those that failed before.

    With a `source`, runs come from it one after the other, in place of those of the study. Runs that other machines
    train are waited for.

    Raises:
        Interrupted: a signal arrived; the states of the active runs are saved.
        FgvcError: another process of this machine is training the study, the disk is full, or the launcher cannot
            train its runs.
    """
    path = folder.path.absolute()
    check = FolderCheck(path, __version__)
    with folder.locked(), catch_signals() as interrupt, closing(launcher):
        launcher.start(LaunchStudy(path, _modules(study, registry), check))
        scheduler = _Scheduler(folder, study, launcher, callback, check, options, retry_failed, source)
        sent = 0
        while scheduler.busy:
            stop = interrupt.number if interrupt else signal.SIGTERM if scheduler.disk_full else 0
            if stop and not sent:
                sent = stop
                scheduler.stop()
            scheduler.submit_waiting()
            for ended in launcher.ended(POLL_SECONDS):
                scheduler.handle(ended)
            scheduler.draw()
            scheduler.follow()
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
        launcher: Launcher,
        callback: SweepCallback,
        check: FolderCheck,
        options: RunOptions,
        retry_failed: bool,
        source: Source | None = None,
    ) -> None:
        self.source = source
        self.folder, self.study, self.launcher, self.callback = folder, study, launcher, callback
        self.check, self.options = check, options
        self.runs = study.runs() if source is None else []
        open_states = ("started", "waiting", *(["failed"] if retry_failed else []))
        self.waiting = [run for run in self.runs if folder.state(run.name) in open_states]
        self.submitted: dict[str, _ActiveRun] = {}
        self.elsewhere: dict[str, _ActiveRun] = {}
        self.stopping = False
        self.eta = Eta()
        self.disk_full = ""
        """Message of the run that found the disk full: it has not failed, since every other run would fail too."""
        self._due = 0.0
        for run in self.runs:
            if folder.run(run.name).finished:
                with suppress(FgvcError):  # the comparison reports damaged summaries
                    self.eta.add(run.combination.name, folder.run(run.name).summary.seconds)
        if source is None:
            callback.planned(len(self.runs) - len(self.waiting), len(self.runs))
        for run in list(self.waiting):
            self._leave_to_others(run)
        self.draw()

    @property
    def busy(self) -> bool:
        """Whether any run has not ended."""
        return bool(self.waiting or self.submitted or self.elsewhere)

    def draw(self) -> None:
        """Take runs from the source, as many as there is room for."""
        if self.source is None:
            return
        active = [*self.submitted, *self.elsewhere, *(run.name for run in self.waiting)]
        room = (self.launcher.capacity or DRAWN_AT_ONCE) - len(active)
        runs = self.source(room, active) if room > 0 else []
        self.runs += [run for run in runs if run.name not in {each.name for each in self.runs}]
        self.waiting += runs
        for run in runs:
            self._leave_to_others(run)

    def stop(self) -> None:
        """Make all runs save their state and end."""
        self.stopping = True
        self.source = None
        self.waiting.clear()
        self.elsewhere.clear()
        self.launcher.cancel(list(self.submitted))

    def submit_waiting(self) -> None:
        """Submit runs as long as the launcher has room."""
        capacity = self.launcher.capacity
        room = len(self.waiting) if capacity is None else max(0, capacity - len(self.submitted))
        runs = [run for run in self.waiting[:room] if not self._leave_to_others(run)]
        if not runs:
            return
        self.waiting = [run for run in self.waiting if run not in runs]
        for run in runs:
            self.submitted[run.name] = _ActiveRun(run, uuid.uuid4().hex, since=time.monotonic())
        self.launcher.submit([LaunchRun(run.name, self._task(run)) for run in runs])

    def _task(self, run: PlannedRun) -> Task:
        return Task(
            self.check, run.name, run.description, self.submitted[run.name].token, run.layers, self.study.recipe,
            self.options.offline, settings.current(), self.options.allow_changed_data,
        )  # fmt: skip

    def _leave_to_others(self, run: PlannedRun) -> bool:
        """Move a waiting run to those trained elsewhere, if another process has claimed it and may live."""
        record = self.folder.record(run.name)
        if record is None or record.ended:
            return False
        watch = Watch(claim_file(self.folder.claims, run.name, record.number))
        if watch.lives(record) is False:
            return False
        self.waiting.remove(run)
        self.elsewhere[run.name] = _ActiveRun(run, "", watch, since=time.monotonic())
        return True

    def handle(self, ended: RunEnded) -> None:
        """Handle the end of the process of a run."""
        active = self.submitted.pop(ended.name)
        record = self.folder.record(ended.name)
        ours = record is not None and record.token == active.token
        active.record = record if ours else active.record
        if self._has_result(active, record if ours else None):
            return
        reason = record.reason if record is not None and ours else ""
        if disk_is_full(ended.problem or reason):
            self.disk_full = ended.problem or reason
        elif record is not None and (not record.ended or ours) and not (ours and ended.problem):
            if not self.stopping:  # trained by another process, or stopped with its state saved
                self.waiting.append(active.run)
        elif ended.problem or not self.stopping:
            reason = ended.problem or "the process ended before it trained the run"
            self.folder.fail(active.run, reason, active.token)
            self.callback.failed(active.run, reason)

    def _has_result(self, active: _ActiveRun, record: Record | None) -> bool:
        """Return whether a run is finished, pruned or failed, after passing that to the callback."""
        run = active.run
        if self.folder.is_pruned(run.name):
            self.callback.pruned(run, len(self.folder.run(run.name).metrics))
            return True
        if record is not None and record.state == "failed":
            self.callback.failed(run, record.reason)
            return True
        if not self.folder.run(run.name).finished:
            return False
        try:
            summary = self.folder.run(run.name).summary
        except FgvcError as error:
            self.callback.failed(run, str(error))
            return True
        self.eta.add(run.combination.name, summary.seconds)
        self.callback.finished(run, summary, active.seconds, self._left())
        return True

    def follow(self) -> None:
        """Read what the processes of active runs say, and pass it to the callback."""
        if time.monotonic() < self._due:
            return
        active = {**self.submitted, **self.elsewhere}
        self._due = time.monotonic() + len(active) / READS_PER_SECOND
        for name, each in active.items():
            record = self.folder.record(name)
            if record is None or (each.token and record.token != each.token):
                continue
            started, each.record = each.record is None or not each.record.epochs, record
            if started and record.epochs:
                each.since = time.monotonic()
                self.callback.started(each.run, record.epochs, record.done)
            if name in self.elsewhere:
                self._follow_elsewhere(each, record)
        shown = {each.run.title: each.record for each in self._active() if each.record is not None}
        self.callback.progressed(shown, self._left())

    def _follow_elsewhere(self, active: _ActiveRun, record: Record) -> None:
        file = claim_file(self.folder.claims, active.run.name, record.number)
        if active.watch is None or active.watch.file != file:
            active.watch = Watch(file)
        if active.watch.lives(record) is False:
            del self.elsewhere[active.run.name]
            if not self._has_result(active, record):
                self.waiting.append(active.run)

    def _active(self) -> list[_ActiveRun]:
        return [*self.submitted.values(), *self.elsewhere.values()]

    def result(self) -> SweepResult:
        """Return the state of all runs."""
        failures = self.folder.failures()
        names = [run.name for run in self.runs]
        if self.source is not None:  # those of the best trial, also if they ended before this sweep
            of_folder = {*(run.name for run in self.folder.runs()), *failures}
            names = sorted(name for name in of_folder if not TRIAL.match(name))
        return SweepResult(
            tuple(name for name in names if self.folder.run(name).finished),
            {name: failures[name].reason for name in names if name in failures},
        )

    def _left(self) -> float | None:
        active = {
            each.run.name: (each.run.combination.name, each.seconds, each.fraction)
            for each in self._active()
            if each.record is not None
        }
        queued = [*self.waiting, *(each.run for each in self.submitted.values() if each.record is None)]
        return self.eta.left(
            [run.combination.name for run in queued], active, self.launcher.capacity or len(active) or 1
        )


def _modules(study: Study, registry: Registry) -> Sequence[str]:
    """Return the modules to import once for all runs: what every run imports, and those of built-in components.

    Those of other plugins are imported by each run alone, since an import may have side effects.
    """
    found = {registry.find(kind, name) for each in study.combinations for kind, name in each.components.items()}
    targets = {component.spec.target.partition(":")[0] for component in found if component.builtin}
    return [*EVERY_RUN, *sorted(targets)]
