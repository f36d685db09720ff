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

from fgvc_cli.benchmarking.dry_run import Images, dry_run, random_job, scratch_folder, start_loader, with_split
from fgvc_cli.benchmarking.results import Feed
from fgvc_cli.benchmarking.timing import synchronize
from fgvc_cli.config.run_config import RunConfig
from fgvc_cli.data.augmentation import Augmentation, resolve_where
from fgvc_cli.data.cache.store import CachedImages
from fgvc_cli.data.images import CachedResize, ImageError, read_image
from fgvc_cli.data.order import seeded
from fgvc_cli.data.splits import subset
from fgvc_cli.devices import loader_workers
from fgvc_cli.formatting import counted
from fgvc_cli.training.setup import Job
from fgvc_cli.training.trainer import Trainer

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

NO_CACHE, FIRST, LATER = "no cache", "first epoch", "later epochs"
"""Names of feeds: every image decoded; every image decoded and cached; every image read from the cache."""

MIN_BATCHES = 2
"""Batches per loader process before the time limit counts."""
MAX_FILLING_PASSES = 5
"""On a slow disk each pass leaves some images out of the cache."""
MAX_PASSES = 50
STAGED_BATCHES = 10
"""Batches for the rate of the device's augmentation."""
SAMPLE, SAMPLE_SECONDS = 32, 1.0
"""Number of images, and time limit, for measuring the fractions of time for reading and augmenting."""


@dataclass
class _Read:
    """Consecutive batches: number of images, seconds until the last is on the device, and indices into the split."""

    images: int = 0
    seconds: float = 0.0
    indices: list[np.ndarray] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Images per second."""
        return self.images / self.seconds


def measure_feeds(config: RunConfig, seconds: float, images: Images | None = None) -> tuple[Feed, ...]:
    """Time how fast training images reach the device, through the trainer's loader and staging, without a model.

    First every image is decoded; those read within the time limit then fill an empty temporary cache, and are read from
    it. After their first reading, files come from the page cache of the system, not from the disk. Where
    nothing can be cached (images in memory, a policy on the whole photograph, `train.cache=off`, no space) there is
    one feed, and its note says why.

    Args:
        config: all settings of the training.
        seconds: time limit for each feed, after a warm-up; a few batches are always read.
        images: of the configuration (`fgvc_cli.training.setup.open_splits`), if they are open already.

    Raises:
        UsageError: components, sizes and settings do not fit together.
        FgvcError: images are missing, too few or unreadable, or `train.cache=on` and they cannot be cached.
    """
    job = random_job(config, images)
    with scratch_folder() as folder:
        with dry_run(job, folder, cached=False) as trainer:
            least = MIN_BATCHES * _readers(trainer)
            read = _read(trainer, 0, lambda r: r.images >= 2 and len(r.indices) >= least and r.seconds >= seconds)
            failed = len(trainer.train_loader.failures)
            notes = [shares_note(job, None), _device_note(trainer)]
        if failed:
            notes.append(f"{counted(failed, 'image')} could not be read")

        def no_cache(*first: str) -> Feed:
            return Feed(NO_CACHE, read.rate, read.images, _joined(*first, *notes))

        if not isinstance(job.splits.train.images[0], str | Path):
            return (no_cache("the images are in memory"),)
        indices = np.unique(np.concatenate(read.indices))
        part = with_split(job, subset(job.splits.train, indices, job.splits.train.name, job.splits.train.origin))
        with dry_run(part, folder) as trainer:
            if trainer.cache.train is None:
                return (no_cache(_why_not_cached(trainer)),)
            return no_cache(), *_cached(trainer, trainer.cache.train, seconds)


def _device_note(trainer: Trainer) -> str:
    """Return the throughput of augmentation on the device; empty if the workers augment."""
    if resolve_where(trainer.job.config.augment, trainer.device).where != "device":
        return ""
    with closing(trainer.train_loader.epoch(0)) as batches:
        batch = next(batches)
    synchronize(trainer.device)
    start = time.perf_counter()
    for _ in range(STAGED_BATCHES):
        trainer.staging([batch])
    synchronize(trainer.device)
    rate = STAGED_BATCHES * len(batch.labels) / (time.perf_counter() - start)
    return f"the device alone augments {rate:,.0f} images per second"


def _cached(trainer: Trainer, cached: CachedImages, seconds: float) -> tuple[Feed, Feed]:
    """Fill the cache, then read from it."""
    first = _read(trainer, 0)
    for _ in range(MAX_FILLING_PASSES):
        if cached.count() == len(cached):
            break
        _read(trainer, 0)
    missing = len(cached) - cached.count()
    passes: list[_Read] = []
    while not passes or (sum(p.seconds for p in passes) < seconds and len(passes) < MAX_PASSES):
        passes.append(_read(trainer, 1 + len(passes)))
    note = f"{missing} of {len(cached)} images were not cached" if missing else ""
    later = Feed(
        LATER,
        statistics.median(p.rate for p in passes),
        sum(p.images for p in passes),
        _joined(note, shares_note(trainer.job, cached)),
    )
    return Feed(FIRST, first.rate, first.images), later


def _read(trainer: Trainer, epoch: int, enough: Callable[[_Read], bool] | None = None) -> _Read:
    """Read batches to the device until there are enough or the epoch ends.

    The last batches of the first epoch, one per loader process, warm up and are not included. `enough` is called each
    time every process has delivered a batch, so that the work of all processes is included.
    """
    loader, readers, read = trainer.train_loader, _readers(trainer), _Read()
    warming = min(readers, len(loader) // 2)
    start_loader(trainer, warming)
    start = time.perf_counter()
    with closing(loader.epoch(epoch)) as batches:
        for batch in islice(batches, len(loader) - warming):
            trainer.staging([batch])
            read.images += len(batch.labels)
            read.indices.append(batch.indices.numpy())
            read.seconds = time.perf_counter() - start
            if enough is not None and len(read.indices) % readers == 0 and enough(read):
                break
        synchronize(trainer.device)
        read.seconds = time.perf_counter() - start
    return read


def _readers(trainer: Trainer) -> int:
    """Return the number of processes that read images, this one if there are no workers."""
    return max(1, loader_workers(trainer.job.config.train.workers, trainer.device))


def _why_not_cached(trainer: Trainer) -> str:
    if trainer.cache.notes:
        return "; ".join(trainer.cache.notes)
    off = trainer.job.config.train.cache == "off"
    return "no image is cached: " + ("`train.cache=off`" if off else "`cache_limit=0`")


def shares_note(job: Job, cached: CachedImages | None) -> str:
    """Describe the fractions of time for reading and augmenting, measured on a few images in this process.

    Args:
        job: the images and their augmentation.
        cached: where they are read from; None: they are decoded (and resized, unless the policy comes first).
    """
    images = job.splits.train.images
    augmentation = Augmentation(resolve_where(job.config.augment, job.device), job.classifier.preprocessing)
    resize = CachedResize.of_augmentation(augmentation)

    def decoded(index: int) -> PILImage:
        image = read_image(images[index], None if resize is None else resize.side)
        return image if resize is None else resize(image)

    with nullcontext() if cached is None else cached.batch():
        reading, augmenting = _seconds(decoded if cached is None else cached.get, augmentation, len(images))
    if not reading:
        return ""
    in_memory = isinstance(images[0], np.ndarray)
    reads = "reads the cache" if cached is not None else "resizes" if in_memory else "decodes"
    augments = "augments" if augmentation.options.where == "workers" else "crops"
    share = round(100 * reading / (reading + augmenting))
    return f"a loader process {reads} for {share} % of its time and {augments} for {100 - share} %"


def _seconds(get: Callable[[int], PILImage | None], augmentation: Augmentation, count: int) -> tuple[float, float]:
    """Return the seconds that reading and augmenting images took, without the first, which warms up."""
    reading = augmenting = 0.0
    chosen = np.unique(np.linspace(0, count - 1, min(SAMPLE, count)).astype(int)).tolist()
    for number, index in enumerate([chosen[0], *chosen]):
        start = time.perf_counter()
        try:
            image = get(index)
        except ImageError:
            continue
        if image is None:
            continue
        read = time.perf_counter()
        with seeded(index):
            augmentation.in_worker(image)
        if number:
            reading, augmenting = reading + read - start, augmenting + time.perf_counter() - read
        if reading + augmenting > SAMPLE_SECONDS:
            break
    return reading, augmenting


def _joined(*notes: str) -> str:
    return "; ".join(note for note in notes if note)
