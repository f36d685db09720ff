"""Train one run of a study in its own process."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import parent_process
from pathlib import Path
from typing import Any

import torch

from fgvc_cli import settings
from fgvc_cli._version import __version__
from fgvc_cli.config.layering import Layer
from fgvc_cli.contracts import RunStart
from fgvc_cli.errors import STOPS, FgvcError
from fgvc_cli.experiments.claims import Claim
from fgvc_cli.experiments.folder import StudyFolder
from fgvc_cli.experiments.search import pruning
from fgvc_cli.files import FileLock, Locked
from fgvc_cli.registry import get_registry
from fgvc_cli.registry.error_origin import describe_error
from fgvc_cli.runs.folder import LOCK_FILE, Run
from fgvc_cli.runs.results import EpochMetrics
from fgvc_cli.settings import Settings
from fgvc_cli.training import run as training
from fgvc_cli.training.callbacks import Callback
from fgvc_cli.training.setup import Job
from fgvc_cli.training.state import Interrupted, expect_repeated_sigterm

logger = logging.getLogger(__name__)

PROGRESS_SECONDS = 0.5
"""Time between two updates of a run's progress."""
LOCK_SECONDS = 120.0
"""Time to wait for the lock of a run whose holder is dead: the lease of NFS lasts 90 s."""


@dataclass(frozen=True)
class FolderCheck:
    """Whether a process sees the folder of a study: the check of `fgvc_cli.contracts.LaunchStudy`."""

    study: Path
    version: str

    def __call__(self) -> str:
        """Return what is wrong, in one line; empty if nothing is."""
        host = socket.gethostname()
        if self.version != __version__:
            return f"fgvc is version {__version__} on {host}, but {self.version} here"
        if not StudyFolder(self.study).exists:
            return f"{host} does not see the study folder {self.study}; put it on a disk that all machines share"
        if not os.access(self.study, os.W_OK):
            return f"{host} cannot write to the study folder {self.study}"
        return ""


@dataclass(frozen=True)
class Task:
    """Trains a run of a study: the work of `fgvc_cli.contracts.LaunchRun`.

    Attributes:
        check: of the study folder.
        name: of the run; one that has started is resumed.
        run: see `fgvc_cli.experiments.claims.Record`.
        token: of the launch.
        layers, recipe: settings of a new run.
        offline: whether downloads are forbidden.
        allow_changed_data: whether a run that has started may resume with changed data.
        settings: of the program.
    """

    check: FolderCheck
    name: str
    run: Mapping[str, Any]
    token: str
    layers: Sequence[Layer]
    recipe: str | None
    offline: bool
    settings: Settings
    allow_changed_data: bool = False

    @property
    def folder(self) -> StudyFolder:
        """The folder of the study."""
        return StudyFolder(self.check.study)

    def __call__(self, threads: int | None) -> None:
        """Train the run as the main function of a process.

        Raises:
            FgvcError: the study folder cannot be used here.
        """
        if problem := self.check():
            raise FgvcError(problem)
        if hasattr(os, "setpgrp"):
            os.setpgrp()  # Ctrl-C in the terminal goes to the main process, which stops this one
        if hasattr(signal, "SIGUSR2"):  # Slurm announces the time limit to all processes of a job
            signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        _redirect_output(self.folder.log(self.name))
        _stop_with_parent()
        expect_repeated_sigterm()
        if threads is not None:
            torch.set_num_threads(threads)
        self.train()

    def train(self) -> None:
        """Train the run, unless another process does, and say in the claim to it how that ended.

        Raises:
            FgvcError: the study folder is missing or cannot be written to.
        """
        claim = Claim.take(self.folder.claims, self.name, self.token, self.run)
        if claim is None:
            logger.info("another process is training this run")
            return
        try:
            with settings.override(self.settings):
                self._train(claim)
            claim.end("finished")
        except (Interrupted, *STOPS):
            claim.end("stopped")
        except BaseException as error:  # a plugin may raise anything
            traceback.print_exc()
            reason = " ".join(describe_error(error, f"traceback in {self.folder.log(self.name)}").split())
            # Every other run would fail too until space is freed, so this one has not.
            claim.end("stopped" if disk_is_full(reason) else "failed", reason)

    def _train(self, claim: Claim) -> None:
        run, registry = self.folder.run(self.name), get_registry()
        callbacks = [_ClaimUpdater(claim), *pruning(self.folder, run)]
        if run.finished:  # by a predecessor
            return
        _wait_for_lock(run)
        if run.config_file.is_file():
            training.resume(run.path, registry, callbacks, self.offline, self.allow_changed_data)
        else:
            training.train(self.layers, self.recipe, run.path, self.offline, registry, callbacks)


def disk_is_full(reason: str) -> bool:
    """Return whether a run failed because the disk is full."""
    return "no space left" in reason.lower()


def _wait_for_lock(run: Run) -> None:
    """Wait for the lock of a run that was taken over: an unreachable machine keeps it until the file server gives up.

    Training then reports a lock that is still held.
    """
    with suppress(Locked, OSError):
        FileLock(run.path / LOCK_FILE, shared=False, timeout=LOCK_SECONDS, inherited=False).close()


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


class _ClaimUpdater(Callback):
    """Writes the progress of a training run into the claim to it, and logs it."""

    def __init__(self, claim: Claim) -> None:
        self._claim = claim
        self._epochs = self._epoch = self._done = self._images = 0
        self._due, self._loss = 0.0, ""

    def on_train_start(self, run: RunStart, job: Job) -> None:
        logger.info(f"{run.folder}: {job.config.backbone.name} + {job.config.head.name}")
        for line in job.notes:
            logger.info(line)
        self._epochs, done = job.config.train.epochs, run.epochs_done
        text = f"epoch {done}/{self._epochs}"
        self._claim.update(epochs=self._epochs, done=done, fraction=done / max(1, self._epochs), text=text)

    def on_epoch_start(self, epoch: int, images: int, remaining: int) -> None:
        self._epoch, self._done, self._images = epoch, images - remaining, images

    def on_batch_end(self, images: int, metrics: Mapping[str, float] | None) -> None:
        self._done += images
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + PROGRESS_SECONDS
            if metrics is not None and "loss" in metrics:
                self._loss = f", loss {metrics['loss']:.3f}"
            self._progress(self._epoch - 1 + self._done / max(self._images, 1))

    def on_epoch_end(self, metrics: EpochMetrics, is_best: bool) -> None:
        logger.info(f"epoch {metrics.epoch}: {metrics.seconds:.1f} s{', best so far' if is_best else ''}")
        self._progress(self._epoch)

    def on_test_start(self, images: int) -> None:
        self._claim.update(fraction=1.0, text=f"test, {images} images")

    def _progress(self, epochs: float) -> None:
        text = f"epoch {self._epoch}/{self._epochs}{self._loss}"
        self._claim.update(fraction=epochs / max(self._epochs, 1), text=text)
