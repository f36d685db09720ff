"""A training that is set up like any other, to be timed: with random weights, and nothing that outlives it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from fgvc_cli import settings
from fgvc_cli.benchmarking.timing import synchronize
from fgvc_cli.contracts import Dataset, Split
from fgvc_cli.data.splits import TrainingSplits
from fgvc_cli.data.store.deciding import TrainingCache
from fgvc_cli.registry import get_registry
from fgvc_cli.runs.assembly import build_backbone
from fgvc_cli.runs.folder import RunFolder
from fgvc_cli.training.config import RunConfig
from fgvc_cli.training.events import RunStart
from fgvc_cli.training.interrupt import Interrupt
from fgvc_cli.training.setup import Job, Plan, open_cache, open_splits, prepare
from fgvc_cli.training.trainer import Trainer

Images = tuple[Dataset, TrainingSplits]
"""A data set and its splits, as `fgvc_cli.training.setup.open_splits` gives them."""

FIRST_STEPS = 10**9
"""Of warm-up: the learning rate is next to nothing, so that random weights with settings that are meant for trained
ones do not end in a loss that is not finite. An update is the same work at any rate."""


class _Silent:
    """A view that shows nothing."""

    def epoch_started(self, epoch: int, images: int, of: int) -> None:
        """Say nothing."""

    def batch_done(self, images: int, metrics: dict[str, float] | None) -> None:
        """Say nothing."""

    def validation_started(self, images: int) -> None:
        """Say nothing."""

    def images_scored(self, images: int) -> None:
        """Say nothing."""

    def epoch_finished(self, line: dict[str, Any], is_best: bool) -> None:
        """Say nothing."""


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
def rehearsal(job: Job, folder: Path, keep: bool = True) -> Iterator[Trainer]:
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
        event = RunStart(folder, {}, job.classifier.class_names, resumed=False)
        run = RunFolder(folder)  # which stays empty: states and models are for epochs that end
        trainer = Trainer(job, run, {}, event, get_registry(), _Silent(), Interrupt(), cache=cache)
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
