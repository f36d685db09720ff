"""Dry runs of training for timing: random weights, no files written."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch

from fgvc_cli import settings
from fgvc_cli.benchmarking.results import Work
from fgvc_cli.benchmarking.timing import summary, synchronize
from fgvc_cli.config.run_config import RunConfig
from fgvc_cli.contracts import Dataset, Split
from fgvc_cli.data.cache.policy import TrainingCache
from fgvc_cli.data.splits import TrainingSplits
from fgvc_cli.devices import compile_in_place
from fgvc_cli.files import FileLock, Locked
from fgvc_cli.runs.folder import Run
from fgvc_cli.runs.model_file import build_backbone
from fgvc_cli.training.setup import Job, Plan, open_cache, open_splits, prepare
from fgvc_cli.training.trainer import Trainer

PREFIX, LOCK_FILE = "bench-", "use.lock"

Images = tuple[Dataset, TrainingSplits]
"""A dataset and its splits, as `fgvc_cli.training.setup.open_splits` returns them."""

WARMUP_STEPS = 10**9
"""Keeps the learning rate near zero, as settings meant for pretrained weights could make the loss of random ones
diverge. An update is the same work at any learning rate."""
MAX_ROUNDS = 20


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield an empty folder, which is deleted at the end.

    It is in the cache folder, the disk from which training reads decoded images, or among the system's temporary
    files if that is not writable. Folders left there by benchmarks that were killed are deleted.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(_temporary_folder(settings.current().cache.absolute())))
        with suppress(OSError):  # on a file system without locks the folder is never deleted as a leftover
            stack.callback(FileLock(folder / LOCK_FILE, shared=False).close)
        yield folder


def _temporary_folder(cache: Path) -> TemporaryDirectory[str]:
    try:
        cache.mkdir(parents=True, exist_ok=True)
        for lock in cache.glob(f"{PREFIX}*/{LOCK_FILE}"):
            with suppress(Locked, OSError):
                FileLock(lock, shared=False).close()
                shutil.rmtree(lock.parent)
        return TemporaryDirectory(prefix=PREFIX, dir=cache, ignore_cleanup_errors=True)
    except OSError:
        return TemporaryDirectory(prefix=f"fgvc-{PREFIX}", ignore_cleanup_errors=True)


def random_job(config: RunConfig, images: Images | None = None) -> Job:
    """Build a training job with random weights, no validation split and a learning rate near zero.

    Raises:
        UsageError: components, sizes and settings do not fit together.
        FgvcError: the images cannot be opened.
    """
    train = config.train
    config = config.with_train(weights="none", epochs=max(1, train.epochs), warmup_steps=WARMUP_STEPS)
    dataset, splits = images or open_splits(config)
    torch.manual_seed(train.seed)
    backbone = build_backbone(config.backbone.component, config.backbone.options, train.image_size)
    return with_split(prepare(Plan(config, backbone, "random weights"), dataset, splits), splits.train)


def with_split(job: Job, split: Split) -> Job:
    """Return a copy of a job that trains on a split, without validation."""
    return replace(job, splits=TrainingSplits(split, None, None))


@contextmanager
def dry_run(job: Job, folder: Path, cached: bool = True) -> Iterator[Trainer]:
    """Yield a trainer; at the end its loader processes are stopped and its files closed.

    Args:
        job: what to train.
        folder: for decoded images, in place of the user's cache folder.
        cached: whether to cache decoded images, if the settings of the job allow it.

    Raises:
        FgvcError: there are too few images, or `train.cache=on` and they cannot be cached.
    """
    with ExitStack() as stack:
        cache = TrainingCache()
        if cached:
            with settings.override(settings.current().changed("fgvc bench", cache_given=folder)):
                cache = open_cache(job)
            stack.callback(cache.close)
        trainer = Trainer(job, Run(folder), {}, cache=cache)  # writes nothing before an epoch ends
        stack.callback(trainer.close_loaders)
        yield trainer


def start_loader(trainer: Trainer, batches: int = 0) -> None:
    """Start the loader processes, discard batches left by an interrupted epoch, and stage some batches as a warm-up."""
    for batch in trainer.train_loader.epoch(0, skip=len(trainer.train_loader) - batches):
        trainer.staging([batch])
    synchronize(trainer.device)


class Pass(NamedTuple):
    """Numbers of consecutive updates and of their images, and seconds until the device has finished the last one."""

    updates: int
    images: int
    seconds: float


def measure_epoch(config: RunConfig, seconds: float, images: Images | None = None) -> Work:
    """Time an epoch of `fgvc train`: its loader, cached images, staging, augmentation, updates and metrics.

    A warm-up pass over the epoch, or over as much of it as the time allows, fills the cache of decoded images. Then the
    same updates are timed, as every later epoch runs them. Validation is not included. Weights are random.

    Args:
        config: all settings of the training.
        seconds: time limit for the warm-up pass (compilation excluded), and again for the rounds; one round is always
            timed.
        images: of the configuration (`fgvc_cli.training.setup.open_splits`), if they are open already.

    Returns:
        Images per round, which may be fewer than the split has, and the time of a round.

    Raises:
        UsageError: components, sizes and settings do not fit together.
        FgvcError: images are missing, too few or unreadable, or the loss is not finite.
    """
    with scratch_folder() as folder, dry_run(random_job(config, images), folder) as trainer:
        torch.backends.cudnn.benchmark = True  # as in `Trainer.fit`
        if trainer.job.config.train.compile:
            compile_in_place(trainer.job.classifier)
        start = time.perf_counter()
        _run_updates(trainer, lambda updates, _: updates == 1)
        first = _run_updates(trainer, lambda _, spent: spent >= seconds)
        warm_up = time.perf_counter() - start
        rounds: list[Pass] = []
        while not rounds or (sum(r.seconds for r in rounds) < seconds and len(rounds) < MAX_ROUNDS):
            rounds.append(_run_updates(trainer, lambda updates, _: updates == first.updates))
    return Work(summary([1000 * r.seconds for r in rounds], warm_up), rounds[0].images)


def _run_updates(trainer: Trainer, enough: Callable[[int, float], bool]) -> Pass:
    """Run the first epoch's updates until `enough(updates, seconds)`."""
    start_loader(trainer)
    trainer.progress.batch = updates = images = 0
    start = time.perf_counter()
    with closing(trainer.updates_of_epoch()) as epoch:
        for count in epoch:
            updates, images = updates + 1, images + count
            if enough(updates, time.perf_counter() - start):
                break
    synchronize(trainer.device)
    return Pass(updates, images, time.perf_counter() - start)
