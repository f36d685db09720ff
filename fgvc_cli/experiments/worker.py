"""Train one run of a study in a process of its own."""

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
from fgvc_cli.errors import FgvcError
from fgvc_cli.locks import FileLock, Locked
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


@dataclass(frozen=True)
class Begun:
    """Training begins, or goes on.

    Attributes:
        epochs: that it has in all.
        done: epochs that were done before.
        notes: lines that a person should know.
    """

    epochs: int
    done: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Moved:
    """It has come so far.

    Attributes:
        share: of all its epochs, in [0, 1].
        text: what is going on, in a word or two.
    """

    share: float
    text: str = ""


@dataclass(frozen=True)
class Finished:
    """It has come to its end.

    Attributes:
        summary: of the run.
    """

    summary: TrainingSummary


@dataclass(frozen=True)
class Failed:
    """It cannot be done.

    Attributes:
        reason: in one line.
    """

    reason: str

    @property
    def disk_is_full(self) -> bool:
        """Whether every other run would fail likewise, until a person makes room."""
        return "no space left" in self.reason.lower()


@dataclass(frozen=True)
class Stopped:
    """It was interrupted, and its state is saved."""


Event = Begun | Moved | Finished | Failed | Stopped
"""The last three are the last thing that a training tells."""


TOLD_EVERY = 0.5
"""Seconds between two words on how far a training is."""
PATIENCE = 600.0
"""Seconds that a process of a killed study has to save the state of its run in, before another goes on with it."""
STOPPED = (128 + signal.SIGINT, 128 + signal.SIGTERM)
"""Exit codes of a training that was told twice to end."""


@dataclass(frozen=True)
class Task:
    """A training that is to be done.

    Attributes:
        folder: of the run; what is in it already goes on.
        layers, recipe: settings of a new run.
        offline: whether downloads are forbidden.
        log: file for all that it prints.
        settings: of the program.
        threads: that torch computes with on the CPU; None: as many as it likes.
        environment: variables to set before anything is computed: which GPU is seen.
    """

    folder: Path
    layers: Sequence[Layer]
    recipe: str | None
    offline: bool
    log: Path
    settings: Settings
    threads: int | None = None
    environment: Mapping[str, str] = field(default_factory=dict)


def work(task: Task, told: Connection) -> None:
    """Do a task; the process that was started for it does nothing else.

    Args:
        task: what to do.
        told: gets events; the last one is `Finished`, `Failed` or `Stopped`.
    """
    if hasattr(os, "setpgrp"):
        os.setpgrp()  # a terminal's Ctrl-C is for the study, which passes it on once
    os.environ.update(task.environment)
    _print_to(task.log)
    _end_with_parent()
    if task.threads is not None:
        torch.set_num_threads(task.threads)
    told.send(_outcome(task, told))


def _outcome(task: Task, told: Connection) -> Event:
    try:
        with settings.in_force(task.settings):
            _wait_for_predecessor(task.log)
            return Finished(_trained(task, _Reporter(told)))
    except (Interrupted, KeyboardInterrupt):
        return Stopped()
    except BaseException as error:  # a plugin may raise anything
        if isinstance(error, SystemExit) and error.code in STOPPED:
            return Stopped()
        traceback.print_exc()
        return Failed(" ".join(describe_error(error, f"{task.log} has the traceback").split()))


def _trained(task: Task, reporter: _Reporter) -> TrainingSummary:
    run, registry = Run(task.folder), get_registry()
    if run.finished:  # by a predecessor
        return run.summary
    if run.config_file.is_file():
        return training.resume(task.folder, registry, [reporter], task.offline).summary
    run.clear_parts()  # of a process that was killed while it wrote the settings
    return training.train(task.layers, task.recipe, task.folder, task.offline, registry, [reporter]).summary


def _wait_for_predecessor(log: Path) -> None:
    """Let a process end that a killed study has left at work on the same run: its state must not be saved by two.

    The log is held until this process has ended.

    Raises:
        FgvcError: it does not end.
    """
    try:
        FileLock(log, shared=False, patience=PATIENCE)
    except Locked as error:
        raise FgvcError("An earlier process is still at work on it: end that one, and try again.") from error
    except OSError:  # a file system without locks
        return


def _print_to(log: Path) -> None:
    """Have all that this process and those that it starts print go to a file."""
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


def _end_with_parent() -> None:
    """Have the state saved and this process ended when the one that runs the study is gone, however it ended."""
    parent = parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


class _Reporter(Callback):
    """Reports the progress of a training to the process that runs the study, and writes the log."""

    def __init__(self, told: Connection) -> None:
        self._told = told
        self._epochs = self._epoch = self._done = self._images = 0
        self._due, self._loss = 0.0, ""

    def on_train_start(self, run: RunStart, job: Job) -> None:
        """Report the start."""
        logger.info(f"{run.folder}: {job.config.backbone.name} + {job.config.head.name}")
        for line in job.notes:
            logger.info(line)
        self._epochs = job.config.train.epochs
        self._send(Begun(self._epochs, run.epochs_done, tuple(job.notes)))

    def on_epoch_start(self, epoch: int, images: int, remaining: int) -> None:
        """Start to count the images of the epoch."""
        self._epoch, self._done, self._images = epoch, images - remaining, images

    def on_batch_end(self, images: int, metrics: Mapping[str, float] | None) -> None:
        """Report the progress now and then."""
        self._done += images
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + TOLD_EVERY
            if metrics is not None and "loss" in metrics:
                self._loss = f", loss {metrics['loss']:.3f}"
            self._send_epochs(self._epoch - 1 + self._done / max(self._images, 1))

    def on_epoch_end(self, metrics: EpochMetrics, is_best: bool) -> None:
        """Report and log the epoch."""
        logger.info(f"epoch {metrics.epoch}: {metrics.seconds:.1f} s{', best so far' if is_best else ''}")
        self._send_epochs(self._epoch)

    def on_test_start(self, images: int) -> None:
        """Report that all epochs are done."""
        self._send(Moved(1.0, f"test, {images} images"))

    def _send_epochs(self, done: float) -> None:
        self._send(Moved(done / max(self._epochs, 1), f"epoch {self._epoch}/{self._epochs}{self._loss}"))

    def _send(self, event: Event) -> None:
        with suppress(OSError):  # nobody reads any more: the training is about to be stopped
            self._told.send(event)
