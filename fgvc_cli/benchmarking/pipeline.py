"""Throughput of the input pipeline alone."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fgvc_cli.benchmarking.dry_run import Images, dry_run, over, random_job, scratch_folder, settle
from fgvc_cli.benchmarking.results import Feed
from fgvc_cli.benchmarking.timing import synchronize
from fgvc_cli.config.run_config import RunConfig
from fgvc_cli.data.augmentation import Augmentation, resolve_where
from fgvc_cli.data.cache.resize import CachedResize
from fgvc_cli.data.cache.store import CachedImages
from fgvc_cli.data.images import ImageError, read_image
from fgvc_cli.data.order import seeded
from fgvc_cli.data.splits import subset
from fgvc_cli.devices import loader_workers
from fgvc_cli.training.setup import Job
from fgvc_cli.training.trainer import Trainer

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage


SAMPLE, SECONDS = 32, 1.0
"""Images that are looked at, and the time after which no other is begun."""


def shares_note(job: Job, kept: CachedImages | None) -> str:
    """Say how the work on an image divides into getting it and augmenting it, from a few images in this process.

    Args:
        job: gives the images and what is done to them.
        kept: where they are read from; None: they are decoded (and resized, unless that comes after the policy).
    """
    images = job.splits.train.images
    augmentation = Augmentation(resolve_where(job.config.augment, job.device), job.classifier.preprocessing)
    rendition = CachedResize.of_augmentation(augmentation)

    def decoded(index: int) -> PILImage:
        image = read_image(images[index], None if rendition is None else rendition.side)
        return image if rendition is None else rendition(image)

    def found(index: int) -> PILImage | None:
        return None if kept is None else kept.get(index)

    with nullcontext() if kept is None else kept.batch():
        getting, augmenting = _spent(decoded if kept is None else found, augmentation, len(images))
    if not getting:
        return ""
    then = "augments" if augmentation.options.where == "workers" else "crops"
    share = round(100 * getting / (getting + augmenting))
    return f"a reading process {_verb(images[0], kept)} for {share} % of its time, and {then} for {100 - share} %"


def _verb(image: object, kept: CachedImages | None) -> str:
    """Say what getting an image is."""
    if kept is not None:
        return "reads the store"
    return "resizes" if isinstance(image, np.ndarray) else "decodes"


def _spent(get: Callable[[int], PILImage | None], augmentation: Augmentation, count: int) -> tuple[float, float]:
    """Return the seconds that getting images and augmenting them took; the first, which warms up, is not counted."""
    getting = augmenting = 0.0
    chosen = np.unique(np.linspace(0, count - 1, min(SAMPLE, count)).astype(int)).tolist()
    for number, index in enumerate([chosen[0], *chosen]):
        started = time.perf_counter()
        try:
            image = get(index)
        except ImageError:
            continue
        if image is None:
            continue
        got = time.perf_counter()
        with seeded(index):
            augmentation.in_worker(image)
        if number:
            getting, augmenting = getting + got - started, augmenting + time.perf_counter() - got
        if getting + augmenting > SECONDS:
            break
    return getting, augmenting


EVERY, FIRST, LATER = "no cache", "first epoch", "later epochs"
"""Feeds: every image decoded; every image decoded and kept; from the kept ones."""

LEAST_ROUNDS = 2
"""Batches of each process that reads, before the time limit counts."""

FILLING = 5
"""Passes, at most, until all images are kept: on a slow disk some are left out of each."""

MOST_PASSES = 50

STAGED = 10
"""Batches that tell how fast the device augments."""


Enough = Callable[["_Fed"], bool]


@dataclass
class _Fed:
    """Batches that came to the device one after the other.

    Attributes:
        images: how many.
        seconds: from the request for the first batch until the last is on the device.
        indices: the images', into the split, one array a batch.
    """

    images: int = 0
    seconds: float = 0.0
    indices: list[np.ndarray] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Images a second."""
        return self.images / self.seconds


def measure_feeds(config: RunConfig, seconds: float, images: Images | None = None) -> tuple[Feed, ...]:
    """Time how training images come to the device, through the trainer's own loader and staging, without a model.

    First every image is decoded; as many as the time allows then fill an empty store, and are read from it. The store
    is a temporary one. Files are where the system has them, which after a first reading is its memory, not the disk.
    Where nothing can be kept (images in memory, a policy on the whole photograph, train.cache=off, no room) there is
    one feed, and its note says why.

    Args:
        config: every setting of the training, the batch size and the processes that read included.
        seconds: for each feed, after warming up; a few batches are always read.
        images: of the configuration (`fgvc_cli.training.setup.open_splits`), if they are open already.

    Raises:
        UsageError: components, sizes and settings do not go together.
        FgvcError: the images are not there, too few or unreadable, or must be kept (train.cache=on) and cannot be.
    """
    job = random_job(config, images)
    with scratch_folder() as folder:
        decoded, notes = _decoded(job, folder, seconds)
        if not isinstance(job.splits.train.images[0], str | Path):
            return (_every(decoded, "the images are in memory", *notes),)
        indices = np.unique(np.concatenate(decoded.indices))
        part = over(job, subset(job.splits.train, indices, job.splits.train.name, job.splits.train.origin))
        with dry_run(part, folder) as trainer:
            if trainer.cache.train is None:
                return (_every(decoded, _why_not(trainer), *notes),)
            return _every(decoded, *notes), *_kept(trainer, trainer.cache.train, seconds)


def _every(decoded: _Fed, *notes: str) -> Feed:
    return Feed(EVERY, decoded.rate, decoded.images, _joined(*notes))


def _decoded(job: Job, folder: Path, seconds: float) -> tuple[_Fed, list[str]]:
    """Decode images until the time is over; return them, and what a person should know of it."""
    with dry_run(job, folder, keep=False) as trainer:
        least = LEAST_ROUNDS * _readers(trainer)
        fed = _fed(trainer, 0, lambda f: f.images >= 2 and len(f.indices) >= least and f.seconds >= seconds)
        failed = len(trainer.train_loader.failures)
        device = _device_note(trainer)
    unreadable = f"{failed} image{'s' * (failed > 1)} could not be read" if failed else ""
    return fed, [shares_note(job, None), device, unreadable]


def _device_note(trainer: Trainer) -> str:
    """Say how fast the device's part of the augmentation is, if it has one."""
    if resolve_where(trainer.job.config.augment, trainer.device).where != "device":
        return ""
    with closing(trainer.train_loader.epoch(0)) as batches:
        batch = next(batches)
    synchronize(trainer.device)
    started = time.perf_counter()
    for _ in range(STAGED):
        trainer.staging([batch])
    synchronize(trainer.device)
    rate = STAGED * len(batch.labels) / (time.perf_counter() - started)
    return f"the device alone augments {rate:,.0f} images a second"


def _kept(trainer: Trainer, kept: CachedImages, seconds: float) -> tuple[Feed, Feed]:
    """Fill the store, then read from it."""
    first = _fed(trainer, 0)
    for _ in range(FILLING):
        if kept.count() == len(kept):
            break
        _fed(trainer, 0)
    there = kept.count()
    missing = f"{len(kept) - there} of {len(kept)} images were not kept" if there < len(kept) else ""
    passes: list[_Fed] = []
    while not passes or (sum(p.seconds for p in passes) < seconds and len(passes) < MOST_PASSES):
        passes.append(_fed(trainer, 1 + len(passes)))
    rate = statistics.median(p.rate for p in passes)
    note = _joined(missing, shares_note(trainer.job, kept))
    return Feed(FIRST, first.rate, first.images), Feed(LATER, rate, sum(p.images for p in passes), note)


def _fed(trainer: Trainer, epoch: int, enough: Enough | None = None) -> _Fed:
    """Bring batches to the device, until there are enough of them or the epoch ends.

    The last batches of the first epoch, one for each process that reads, warm up and are not among them. Whether there
    are enough is asked when every process has given a batch: so none is cut short at work that would not count.
    """
    loader, readers, fed = trainer.train_loader, _readers(trainer), _Fed()
    warming = min(readers, len(loader) // 2)
    settle(trainer, warming)
    started = time.perf_counter()
    with closing(loader.epoch(epoch)) as batches:
        for batch in islice(batches, len(loader) - warming):
            trainer.staging([batch])
            fed.images += len(batch.labels)
            fed.indices.append(batch.indices.numpy())
            fed.seconds = time.perf_counter() - started
            if enough is not None and len(fed.indices) % readers == 0 and enough(fed):
                break
        synchronize(trainer.device)
        fed.seconds = time.perf_counter() - started
    return fed


def _readers(trainer: Trainer) -> int:
    """Return how many processes read images; this one, if there is no other."""
    return max(1, loader_workers(trainer.job.config.train.workers, trainer.device))


def _why_not(trainer: Trainer) -> str:
    """Say why no decoded image is kept."""
    if trainer.cache.notes:
        return "; ".join(trainer.cache.notes)
    off = trainer.job.config.train.cache == "off"
    return "no decoded image is kept: " + ("train.cache is off" if off else "--cache-limit is 0")


def _joined(*notes: str) -> str:
    return "; ".join(note for note in notes if note)
