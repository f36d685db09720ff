"""Callbacks: the one channel through which a training reports what happens."""

from __future__ import annotations

import copy
import logging
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import replace
from types import TracebackType
from typing import Any

from fgvc_cli.config.run_config import Choice
from fgvc_cli.contracts import RunStart, Tracker
from fgvc_cli.enforcement import make
from fgvc_cli.errors import STOPS, FgvcError, cause_of
from fgvc_cli.registry import Registry
from fgvc_cli.runs.results import EpochMetrics, TrainingSummary
from fgvc_cli.training.setup import Job

logger = logging.getLogger(__name__)


class Callback:
    """Observes a training run; override the methods you need.

    Of several processes that train together, only the first calls them. An exception ends the training. Every callback
    whose `on_train_start` returned gets exactly one call of `on_train_end` or `on_failure`.
    """

    def on_train_start(self, run: RunStart, job: Job) -> None:
        """Training starts or resumes; later callbacks show lines added to `job.notes` to the user."""

    def on_epoch_start(self, epoch: int, images: int, remaining: int) -> None:
        """An epoch (from 1) of `images` images starts; `remaining` of them are left if it is resumed mid-epoch."""

    def on_batch_end(self, images: int, metrics: Mapping[str, float] | None) -> None:
        """An update on `images` images is done; the running means of the epoch are given every few updates."""

    def on_validation_start(self, images: int) -> None:
        """The updates of the epoch are done and validation starts."""

    def on_images_scored(self, images: int) -> None:
        """A batch of the validation or the test split is scored."""

    def on_epoch_end(self, metrics: EpochMetrics, is_best: bool) -> None:
        """The epoch is done and everything is saved; `is_best` if its weights are the best so far."""

    def on_test_start(self, images: int) -> None:
        """All epochs are done and scoring of the test split starts (0 images: there is none)."""

    def on_train_end(self, summary: TrainingSummary) -> None:
        """The run is finished and its summary written."""

    def on_failure(self, error: BaseException) -> None:
        """Training failed or was interrupted (`Interrupted`); it may be resumed later."""


class Callbacks:
    """The callbacks of one training; iterating gives those that have started.

    As a context, it calls their `on_failure` if the block raises.
    """

    def __init__(self, callbacks: Iterable[Callback] = ()) -> None:
        self._all = list(callbacks)
        self._active: list[Callback] = []

    def __iter__(self) -> Iterator[Callback]:
        return iter(self._active)

    def __enter__(self) -> Callbacks:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        while error is not None and self._active:
            self._active.pop(0).on_failure(error)

    def start(self, run: RunStart, job: Job) -> None:
        """Call `on_train_start` of each."""
        for callback in self._all:
            callback.on_train_start(run, job)
            self._active.append(callback)

    def end(self, summary: TrainingSummary) -> None:
        """Call `on_train_end` of each."""
        while self._active:
            self._active.pop(0).on_train_end(summary)


class PluginHooks(Callback):
    """Calls the run events that plugins implement: `fgvc_run_started`, `fgvc_epoch_finished`, `fgvc_run_finished`."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry

    def on_train_start(self, run: RunStart, job: Job) -> None:  # noqa: ARG002
        """Call `fgvc_run_started`."""
        self.run = run
        self.registry.notify("fgvc_run_started", run=run)

    def on_epoch_end(self, metrics: EpochMetrics, is_best: bool) -> None:  # noqa: ARG002
        """Call `fgvc_epoch_finished`."""
        self.registry.notify("fgvc_epoch_finished", run=self.run, metrics=metrics.as_json())

    def on_train_end(self, summary: TrainingSummary) -> None:
        """Call `fgvc_run_finished`."""
        self.registry.notify("fgvc_run_finished", run=self.run, summary=summary.as_json())


class TrackerCallback(Callback):
    """Reports to an experiment tracker.

    A tracker that cannot start ends the training before its first update. One that raises later is warned of once and
    never stops the run. What it prints goes to standard error, because standard output belongs to the command: tracking
    packages print links.

    Raises:
        FgvcError: the tracker cannot be built, for example because its package is not installed, or is not a `Tracker`.
    """

    def __init__(self, choice: Choice) -> None:
        self._name = choice.component.title
        self._warned = False
        with redirect_stdout(sys.stderr):
            self._tracker = make(choice.component, Tracker, options=choice.options)

    def on_train_start(self, run: RunStart, job: Job) -> None:
        """Start the tracker, and add its notes to those of the job."""
        try:
            with redirect_stdout(sys.stderr):
                self._tracker.started(replace(run, config=copy.deepcopy(run.config)))
        except STOPS:
            raise
        except (Exception, SystemExit) as error:
            raise FgvcError(
                f"{self._name} could not start: {cause_of(error)}. Fix that, or remove it from train.track in "
                f"{run.folder / 'config.toml'}; then resume the run (`resume={run.folder}`)"
            ) from error
        notes = self._call("notes")
        if isinstance(notes, list) and all(isinstance(line, str) for line in notes):
            job.notes.extend(notes)
        elif notes is not None:
            self._warn("notes", f"it returned {notes!r} instead of a list of lines")

    def on_epoch_end(self, metrics: EpochMetrics, is_best: bool) -> None:  # noqa: ARG002
        """Report the line that `metrics.jsonl` got."""
        self._call("epoch_finished", metrics.as_json())

    def on_train_end(self, summary: TrainingSummary) -> None:
        """Report the summary."""
        self._call("finished", summary.as_json())

    def on_failure(self, error: BaseException) -> None:  # noqa: ARG002
        """Report that there is no summary."""
        self._call("finished", None)

    def _call(self, method: str, *arguments: Any) -> Any:
        try:
            with redirect_stdout(sys.stderr):
                return getattr(self._tracker, method)(*arguments)
        except STOPS:
            raise
        except (Exception, SystemExit) as error:
            self._warn(method, cause_of(error))
            return None

    def _warn(self, method: str, cause: str) -> None:
        if not self._warned:
            self._warned = True
            logger.warning(f"{self._name}: `{method}` failed, training continues: {cause}")
