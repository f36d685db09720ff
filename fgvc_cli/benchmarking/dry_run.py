"""A training with random weights that leaves nothing behind, for timing."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from fgvc_cli import settings
from fgvc_cli.benchmarking.results import Work
from fgvc_cli.benchmarking.timing import summary, synchronize
from fgvc_cli.config.run_config import RunConfig
from fgvc_cli.contracts import Dataset, Split
from fgvc_cli.data.cache.policy import TrainingCache
from fgvc_cli.data.splits import TrainingSplits
from fgvc_cli.devices import compile_in_place
from fgvc_cli.locks import FileLock, Locked
from fgvc_cli.runs.folder import Run
from fgvc_cli.runs.model_file import build_backbone
from fgvc_cli.training.setup import Job, Plan, open_cache, open_splits, prepare
from fgvc_cli.training.trainer import Trainer

PREFIX, IN_USE = "bench-", "use.lock"


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Give an empty folder, which is removed at the end with all that is in it.

    It is made in the cache folder, because that is the disk from which trainings read their decoded images; where that
    cannot be written, among the system's temporary files. What benchmarks that were killed have left there is removed.
    """
    with ExitStack() as at_the_end:
        folder = Path(at_the_end.enter_context(_temporary(settings.current().cache.absolute())))
        with suppress(OSError):  # a file system without locks: then nobody removes it as left over, either
            at_the_end.callback(FileLock(folder / IN_USE, shared=False).close)
        yield folder


def _temporary(cache: Path) -> TemporaryDirectory[str]:
    try:
        cache.mkdir(parents=True, exist_ok=True)
        _remove_left_over(cache)
        return TemporaryDirectory(prefix=PREFIX, dir=cache, ignore_cleanup_errors=True)
    except OSError:
        return TemporaryDirectory(prefix=f"fgvc-{PREFIX}", ignore_cleanup_errors=True)


def _remove_left_over(cache: Path) -> None:
    for lock in cache.glob(f"{PREFIX}*/{IN_USE}"):
        with suppress(Locked, OSError):
            FileLock(lock, shared=False).close()
            shutil.rmtree(lock.parent)


Images = tuple[Dataset, TrainingSplits]
"""A dataset and its splits, as `fgvc_cli.training.setup.open_splits` gives them."""

FIRST_STEPS = 10**9
"""Of warm-up: the learning rate is next to nothing, so that random weights with settings that are meant for trained
ones do not end in a loss that is not finite. An update is the same work at any rate."""


def random_job(config: RunConfig, images: Images | None = None) -> Job:
    """Build what a training needs, with random weights, no validation split and a learning rate near zero.

    Args:
        config: every setting; its weights are left alone, so that nothing is downloaded.
        images: of the configuration, if they are open already.

    Raises:
        UsageError: components, sizes and settings do not go together.
        FgvcError: the images cannot be had.
    """
    train = config.train
    config = config.with_train(weights="none", epochs=max(1, train.epochs), warmup_steps=FIRST_STEPS)
    dataset, splits = images or open_splits(config)
    torch.manual_seed(train.seed)
    backbone = build_backbone(config.backbone.component, config.backbone.options, train.image_size)
    return over(prepare(Plan(config, backbone, "random weights"), dataset, splits), splits.train)


def over(job: Job, split: Split) -> Job:
    """Return the same job over other training images."""
    return replace(job, splits=TrainingSplits(split, None, None))


@contextmanager
def dry_run(job: Job, folder: Path, keep: bool = True) -> Iterator[Trainer]:
    """Give a trainer of a job; at the end its processes have ended and its files are closed.

    Args:
        job: what to train.
        folder: where decoded images are kept, instead of the cache folder; the person's own are not touched.
        keep: whether they may be kept; the settings of the job may still forbid it.

    Raises:
        FgvcError: there are too few images, or they must be kept (train.cache=on) and cannot be.
    """
    with ExitStack() as at_the_end:
        cache = TrainingCache()
        if keep:
            with settings.in_force(settings.current().changed("fgvc bench", cache_given=folder)):
                cache = open_cache(job)
            at_the_end.callback(cache.close)
        run = Run(folder)  # which stays empty: states and models are for epochs that end
        trainer = Trainer(job, run, {}, cache=cache)
        at_the_end.callback(trainer.close_loaders)
        yield trainer


def settle(trainer: Trainer, batches: int = 0) -> None:
    """Have the processes that load images started, and what an unfinished epoch left with them out of the way.

    Args:
        trainer: whose loader it is.
        batches: at the end of the first epoch, to load and stage, so that all that happens once has happened.
    """
    for batch in trainer.train_loader.epoch(0, skip=len(trainer.train_loader) - batches):
        trainer.staging([batch])
    synchronize(trainer.device)


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
    with scratch_folder() as folder, dry_run(random_job(config, images), folder) as trainer:
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
