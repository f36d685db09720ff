"""A real epoch: the trainer's own updates over real images, timed."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

import torch

from fgvc_cli.benchmarking.rehearsal import Images, random_job, rehearsal, settle
from fgvc_cli.benchmarking.results import Work
from fgvc_cli.benchmarking.scratch import scratch_folder
from fgvc_cli.benchmarking.timing import summary, synchronize
from fgvc_cli.devices import compile_in_place
from fgvc_cli.training.config import RunConfig
from fgvc_cli.training.trainer import Trainer

MOST_ROUNDS = 20


@dataclass(frozen=True)
class Pass:
    """Updates of an epoch that were done one after the other.

    Attributes:
        updates, images: how many.
        seconds: from the request for the first batch until the device has done the last update.
    """

    updates: int
    images: int
    seconds: float


def measure_epoch(config: RunConfig, seconds: float, images: Images | None = None) -> Work:
    """Time an epoch as `fgvc train` does it: its loader, kept images, staging, augmentation, updates and metrics.

    One pass warms up, over the whole epoch or as much of it as the time allows; it fills the store of decoded images.
    Then the same updates are timed, as they are in every later epoch. Validation is no part of it. Weights are random.

    Args:
        config: every setting of the training, the batch size and the processes that read included.
        seconds: for warming up (compiling, and what else happens once, is not counted), and as many for the rounds;
            one round is always timed.
        images: of the configuration (`fgvc_cli.training.setup.open_splits`), if they are open already.

    Returns:
        The images of a round, which may be fewer than the split has, and how long a round takes.

    Raises:
        UsageError: components, sizes and settings do not go together.
        FgvcError: the images are not there, too few or unreadable, or the loss is not finite.
    """
    with scratch_folder() as folder, rehearsal(random_job(config, images), folder) as trainer:
        torch.backends.cudnn.benchmark = True  # as `Trainer.fit` has it
        if trainer.job.config.train.compile:
            compile_in_place(trainer.job.classifier)
        begun = time.perf_counter()
        _passed(trainer, lambda updates, _: updates == 1)
        whole = _passed(trainer, lambda _, spent: spent >= seconds)
        warm_up = time.perf_counter() - begun
        rounds: list[Pass] = []
        while not rounds or (sum(r.seconds for r in rounds) < seconds and len(rounds) < MOST_ROUNDS):
            rounds.append(_passed(trainer, lambda updates, _: updates == whole.updates))
    return Work(summary([1000 * r.seconds for r in rounds], warm_up), rounds[0].images)


def _passed(trainer: Trainer, enough: Callable[[int, float], bool]) -> Pass:
    """Do the first epoch's updates until there are enough of them, given their number and the seconds spent."""
    settle(trainer)
    trainer.progress.batch = updates = images = 0
    started = time.perf_counter()
    with closing(trainer.updates_of_epoch()) as done:
        for count in done:
            updates, images = updates + 1, images + count
            if enough(updates, time.perf_counter() - started):
                break
    synchronize(trainer.device)
    return Pass(updates, images, time.perf_counter() - started)
