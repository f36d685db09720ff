"""Batches of pixels for training and evaluation, the same whatever the number of worker processes."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from fgvc_cli.config.train_options import AugmentOptions
from fgvc_cli.contracts import Preprocessing, Split
from fgvc_cli.data.batch_augmentation.draws import Draws
from fgvc_cli.data.cache.store import KeptImages
from fgvc_cli.data.order import (
    WHOLE,
    Batch,
    Requests,
    Sampling,
    Share,
    batches_in_epoch,
    epoch_batches,
    least_images,
    passing_batches,
)
from fgvc_cli.data.reading import BatchReader, LoadedBatch, prepare_worker
from fgvc_cli.errors import FgvcError, UsageError

logger = logging.getLogger(__name__)


class ImageBatch(NamedTuple):
    """Images as the loaders give them."""

    pixels: Tensor
    """uint8 B,3,S,S, not normalized"""
    labels: Tensor
    """int64 B"""
    indices: Tensor
    """int64 B, into the split"""
    draws: Draws | None = None
    """what is left to do to the images, as drawn; None: nothing"""


@dataclass(frozen=True)
class Failure:
    """An image that could not be read: its key in the split and why."""

    key: str
    reason: str


class _Loader:
    """What training and evaluation share: workers, and images that cannot be read.

    Attributes:
        failures: images that could not be read so far, by key.
    """

    def __init__(
        self,
        split: Split,
        reader: BatchReader,
        batch_size: int,
        workers: int,
        pin_memory: bool,
        strict: bool,
        start_method: str | None,
    ) -> None:
        if batch_size < 1:
            raise UsageError(f"A batch size of {batch_size} is not possible: it must be at least 1.")
        self.split, self.batch_size = split, batch_size
        self.failures: dict[str, Failure] = {}
        self._reader, self._strict = reader, strict
        self._workers, self._pin_memory, self._start_method = workers, pin_memory, start_method
        self._requests = Requests()
        self._torch_loader = self._new_torch_loader()

    def close(self) -> None:
        """Stop the worker processes and let go of files; the next pass starts and opens them anew."""
        self._torch_loader = self._new_torch_loader()
        self._reader.close()

    def take_over(self, reasons: Mapping[str, str]) -> None:
        """Add images, by key, that other processes could not read, and warn of those not known yet."""
        for key, reason in reasons.items():
            if key not in self.failures:
                self.failures[key] = Failure(key, reason)
                logger.warning(f"left out: {key}: {reason}")

    def _new_torch_loader(self) -> DataLoader[LoadedBatch]:
        workers = self._workers
        return DataLoader(
            self._reader,
            batch_size=None,  # a request is a batch
            sampler=self._requests,
            num_workers=workers,
            persistent_workers=workers > 0,
            prefetch_factor=2 if workers else None,
            pin_memory=self._pin_memory,
            worker_init_fn=prepare_worker,
            multiprocessing_context=self._start_method if workers else None,
            generator=torch.Generator(),  # or it would draw from the global one
        )

    def _load(self, batches: list[Batch], epoch: int | None = None) -> Iterator[ImageBatch]:
        """Load batches in order, one for one; images that cannot be read are missing from theirs."""
        self._requests.ask(batches, epoch)
        if self._workers:
            self._reader.close()  # what is open here, a forked worker could not open for itself
        try:
            with _child_signals_unchanged():
                loaded = iter(self._torch_loader)
            for batch in loaded:
                self._note_failures(batch.failed)
                self._note_trouble(batch.trouble)
                yield ImageBatch(batch.pixels, batch.labels, batch.indices, batch.draws)
        except RuntimeError as error:
            if not str(error).startswith("DataLoader worker"):
                raise
            self.close()
            raise FgvcError(
                "A process that loads images was stopped from outside, most likely because memory (or shared memory, "
                "/dev/shm) ran out. Use fewer --workers or a smaller --batch-size; --workers 0 starts none."
            ) from error

    def _note_failures(self, failed: list[tuple[int, str, str]]) -> None:
        for index, cause, message in failed:
            key = self.split.keys[index]
            if self._strict:
                raise FgvcError(f"{message} Training and evaluation stop at it because of --strict-data.")
            if key not in self.failures:
                self.failures[key] = Failure(key, cause)
                logger.warning(f"left out: {message}")

    def _note_trouble(self, trouble: str) -> None:
        """Warn once, of a store that several loaders read too, that images are decoded although they should be kept."""
        kept = self._reader.kept
        if trouble and kept is not None and not kept.store.told:
            kept.store.told = True
            logger.warning(f"the store of decoded images, {kept.store.folder}: {trouble}. Images are decoded instead.")


class TrainingLoader(_Loader):
    """Augmented batches in a new order each epoch.

    The order follows from (seed, epoch) and each image's augmentation from (seed, epoch, index): neither from the
    number of workers, nor from what was loaded before. Torch's global random numbers stay untouched. An image that
    cannot be read is warned about once and left out of its batch.

    Attributes:
        position: batches of the present epoch that are done with, those left out included; what `skip` takes to go
            on from here.

    Args:
        split: the images to train on.
        preprocessing: gives image size, resize and interpolation.
        augment: what is done to the images.
        batch_size: images in a batch. The last batch may be smaller; one of a single image is dropped.
        seed: of order and augmentation.
        workers: processes that load images; 0 loads in this one. Each keeps at most two batches ready.
        pin_memory: put batches into page-locked memory, for a GPU.
        strict: stop at the first image that cannot be read.
        start_method: "fork", "forkserver" or "spawn"; None: the platform's default.
        share: which part of each epoch is this process's.
        agree: says whether all processes say yes; a batch that one of them must leave out is left out by all.
        sampling: how often an image comes up, see `fgvc_cli.data.order.epoch_order`.
        kept: where images are that were decoded before.

    Raises:
        FgvcError: there are not even two images (for each process).
        UsageError: the batch size is below 1.
    """

    def __init__(
        self,
        split: Split,
        preprocessing: Preprocessing,
        augment: AugmentOptions,
        batch_size: int,
        seed: int,
        workers: int,
        pin_memory: bool,
        strict: bool = False,
        start_method: str | None = None,
        share: Share = WHOLE,
        agree: Callable[[bool], bool] = bool,
        sampling: Sampling = "image",
        kept: KeptImages | None = None,
    ) -> None:
        reader = BatchReader(split, preprocessing, augment, seed, kept)
        super().__init__(split, reader, batch_size, workers, pin_memory, strict, start_method)
        self.seed, self.position = seed, 0
        self._share, self._agree, self._sampling = share, agree, sampling
        if len(split) < 2 * share.of:
            each = f" for each of {share.of} processes" if share.of > 1 else ""
            raise FgvcError(f"Training needs at least 2 images{each}, and the {split.name} split has {len(split)}.")

    def __len__(self) -> int:
        return batches_in_epoch(len(self.split), self.batch_size, self._share.of)

    def epoch(self, epoch: int, skip: int = 0) -> Generator[ImageBatch, None, None]:
        """Give the batches of one epoch; one with fewer than two readable images is left out.

        Args:
            epoch: number of the epoch; the same number gives the same batches.
            skip: batches at its beginning that are done already, as `position` counts them.

        Raises:
            FgvcError: an image cannot be read and the loader is strict, none at all can be read, or a worker died.
        """
        labels = self._reader.labels
        batches = epoch_batches(labels, self.batch_size, self.seed, epoch, self._share, self._sampling)[skip:]
        self.position = skip
        trainable = 0
        for batch in self._load(batches, epoch):
            self.position += 1
            if self._agree(len(batch.labels) >= least_images(self.batch_size)):
                trainable += 1
                yield batch
        if batches and not trainable and not skip:
            raise FgvcError(
                f"None of the batches of the {self.split.name} split could be read: "
                f"{len(self.failures)} of its {len(self.split)} images are unreadable."
            )


class EvaluationLoader(_Loader):
    """A whole split in order, nothing augmented. Iterate over it as often as needed, one pass at a time.

    An image that cannot be read is warned about once and left out.

    Args:
        split: the images.
        preprocessing: how an image becomes what the backbone sees.
        batch_size: images in a batch; the last may be smaller.
        workers: processes that load images; 0 loads in this one. Each keeps at most two batches ready.
        pin_memory: put batches into page-locked memory, for a GPU.
        strict: stop at the first image that cannot be read.
        start_method: "fork", "forkserver" or "spawn"; None: the platform's default.
        kept: where images are that were decoded before.

    Raises:
        UsageError: the batch size is below 1.
    """

    def __init__(
        self,
        split: Split,
        preprocessing: Preprocessing,
        batch_size: int,
        workers: int,
        pin_memory: bool,
        strict: bool = False,
        start_method: str | None = None,
        kept: KeptImages | None = None,
    ) -> None:
        reader = BatchReader(split, preprocessing, None, seed=0, kept=kept)
        super().__init__(split, reader, batch_size, workers, pin_memory, strict, start_method)

    def __len__(self) -> int:
        return -(-len(self.split) // self.batch_size)

    def __iter__(self) -> Iterator[ImageBatch]:
        batches = passing_batches(len(self.split), self.batch_size)
        return (batch for batch in self._load(batches) if len(batch.labels))


@contextmanager
def _child_signals_unchanged() -> Iterator[None]:
    """Undo the SIGCHLD handler that torch installs when workers start.

    It raises wherever this process happens to be when a worker dies, in the middle of an update too. Without it the
    death is found where the next batch is waited for.
    """
    if not hasattr(signal, "SIGCHLD") or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL if before is None else before)
