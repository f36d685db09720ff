"""Train one run of a study in its own process."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from fgvc_cli import settings
from fgvc_cli.config.layering import Layer
from fgvc_cli.contracts import RunStart
from fgvc_cli.errors import STOPS, FgvcError
from fgvc_cli.files import FileLock, Locked
from fgvc_cli.registry import get_registry
from fgvc_cli.registry.error_origin import describe_error
from fgvc_cli.runs.folder import Run
from fgvc_cli.runs.results import EpochMetrics, TrainingSummary
from fgvc_cli.settings import Settings
from fgvc_cli.training import run as training
from fgvc_cli.training.callbacks import Callback
from fgvc_cli.training.setup import Job
from fgvc_cli.training.state import Interrupted

logger = logging.getLogger(__name__)

PROGRESS_SECONDS = 0.5
"""Time between two progress events of a run."""
LOCK_SECONDS = 600.0
"""Time that the worker of a killed study has to save its state before another one resumes the run."""


@dataclass(frozen=True)
class Started:
    """Training starts, or resumes after a number of epochs that are done."""

    epochs: int
    done: int


@dataclass(frozen=True)
class Progressed:
    """Training progresses: the fraction of all epochs in [0, 1], and a short status."""

    fraction: float
    text: str = ""


@dataclass(frozen=True)
class Finished:
    """Training is complete."""

    summary: TrainingSummary


@dataclass(frozen=True)
class Failed:
    """Training failed, with the reason in one line."""

    reason: str

    @property
    def disk_is_full(self) -> bool:
        """Whether every other run would fail too until space is freed."""
        return "no space left" in self.reason.lower()


@dataclass(frozen=True)
class Stopped:
    """Training was interrupted and its state is saved."""


Event = Started | Progressed | Finished | Failed | Stopped
"""What a worker sends; the last event is one of the last three."""


@dataclass(frozen=True)
class Task:
    """A training to run in a worker.

    Attributes:
        folder: of the run; a run that has started is resumed.
        layers, recipe: settings of a new run.
        offline: whether downloads are forbidden.
        allow_changed_data: whether a run that has started may resume with changed data.
        log: file for all output.
        settings: of the program.
        threads: torch CPU threads; None: torch's default.
        environment: variables to set first, such as the visible GPU.
    """

    folder: Path
    layers: Sequence[Layer]
    recipe: str | None
    offline: bool
    log: Path
    settings: Settings
    threads: int | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    allow_changed_data: bool = False


def work(task: Task, events: Connection) -> None:
    """Run a task as the main function of a worker process; send the events of the training."""
    if hasattr(os, "setpgrp"):
        os.setpgrp()  # Ctrl-C in the terminal goes to the main process, which forwards it once
    os.environ.update(task.environment)
    _redirect_output(task.log)
    _stop_with_parent()
    if task.threads is not None:
        torch.set_num_threads(task.threads)
    events.send(run_task(task, events))


def run_task(task: Task, events: Connection) -> Event:
    """Train a run and return the last event."""
    try:
        if hasattr(signal, "pthread_sigmask"):  # see `worker_pool._context`
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        with settings.override(task.settings):
            _wait_for_predecessor(task.log)
            return Finished(_train(task, _EventSender(events)))
    except (Interrupted, *STOPS):
        return Stopped()
    except BaseException as error:  # a plugin may raise anything
        traceback.print_exc()
        return Failed(" ".join(describe_error(error, f"traceback in {task.log}").split()))


def _train(task: Task, callback: _EventSender) -> TrainingSummary:
    run, registry = Run(task.folder), get_registry()
    if run.finished:  # by a predecessor
        return run.summary
    if run.config_file.is_file():
        return training.resume(task.folder, registry, [callback], task.offline, task.allow_changed_data).summary
    return training.train(task.layers, task.recipe, task.folder, task.offline, registry, [callback]).summary


def _wait_for_predecessor(log: Path) -> None:
    """Wait for a worker that a killed study left running, so that two never save the state of one run.

    The log stays locked until this process exits.

    Raises:
        FgvcError: it does not exit.
    """
    try:
        FileLock(log, shared=False, timeout=LOCK_SECONDS)
    except Locked as error:
        raise FgvcError("An earlier process is still training this run; stop it, then retry") from error
    except OSError:  # a file system without locks
        return


def _redirect_output(log: Path) -> None:
    """Send the output of this process and its children to a file."""
    log.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    for number in (1, 2):
        os.dup2(handle, number)
    os.close(handle)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
    host = logging.getLogger("fgvc_cli")
    host.setLevel(logging.INFO)
    host.addHandler(logging.StreamHandler(sys.stderr))


def _stop_with_parent() -> None:
    """Save the state and stop when the main process is gone, however it ended."""
    parent = parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


class _EventSender(Callback):
    """Sends the progress of a training run to the main process, and logs it."""

    def __init__(self, events: Connection) -> None:
        self._events = events
        self._epochs = self._epoch = self._done = self._images = 0
        self._due, self._loss = 0.0, ""

    def on_train_start(self, run: RunStart, job: Job) -> None:
        logger.info(f"{run.folder}: {job.config.backbone.name} + {job.config.head.name}")
        for line in job.notes:
            logger.info(line)
        self._epochs = job.config.train.epochs
        self._send(Started(self._epochs, run.epochs_done))

    def on_epoch_start(self, epoch: int, images: int, remaining: int) -> None:
        self._epoch, self._done, self._images = epoch, images - remaining, images

    def on_batch_end(self, images: int, metrics: Mapping[str, float] | None) -> None:
        self._done += images
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + PROGRESS_SECONDS
            if metrics is not None and "loss" in metrics:
                self._loss = f", loss {metrics['loss']:.3f}"
            self._send_progress(self._epoch - 1 + self._done / max(self._images, 1))

    def on_epoch_end(self, metrics: EpochMetrics, is_best: bool) -> None:
        logger.info(f"epoch {metrics.epoch}: {metrics.seconds:.1f} s{', best so far' if is_best else ''}")
        self._send_progress(self._epoch)

    def on_test_start(self, images: int) -> None:
        self._send(Progressed(1.0, f"test, {images} images"))

    def _send_progress(self, epochs: float) -> None:
        self._send(Progressed(epochs / max(self._epochs, 1), f"epoch {self._epoch}/{self._epochs}{self._loss}"))

    def _send(self, event: Event) -> None:
        with suppress(OSError):  # the main process is gone: this one is about to be stopped
            self._events.send(event)
