"""Batches of pixels for training and evaluation, identical for any number of worker processes."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from fgvc_cli.config.train_options import AugmentOptions
from fgvc_cli.contracts import Preprocessing, Split
from fgvc_cli.data.augmentation import Augmentation
from fgvc_cli.data.batch_augmentation.draws import Draw, Draws
from fgvc_cli.data.cache.store import CachedImages
from fgvc_cli.data.images import CachedResize, ImageError, read_image
from fgvc_cli.data.order import (
    WHOLE,
    Batch,
    BatchRequest,
    RequestSampler,
    Sampling,
    Shard,
    batches_in_epoch,
    epoch_batches,
    image_seed,
    min_batch_size,
    seeded,
    sequential_batches,
)
from fgvc_cli.data.sending import FAILURES, Sending, quiet_finalizers, shortage
from fgvc_cli.data.splits import pack_images
from fgvc_cli.data.views import Crops
from fgvc_cli.errors import FgvcError, UsageError

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage


logger = logging.getLogger(__name__)


class ImageBatch(NamedTuple):
    """A batch of images."""

    pixels: Tensor
    """uint8 B,3,S,S, not normalized; B,0 after `skip_pixels`"""
    labels: Tensor
    """int64 B"""
    indices: Tensor
    """int64 B, into the split"""
    draws: Draws | None = None
    """augmentation left for the device; None: nothing"""
    crops: tuple[Tensor, ...] = ()
    """uint8 B,V,3,S,S for each image size of test-time augmentation, `pixels` first; empty without it"""


class LoadedBatch(NamedTuple):
    """What a worker returns for a request."""

    batch: ImageBatch
    """the images that could be read"""
    failed: list[tuple[int, str, str]]
    """index, reason and message of those that could not"""
    cache_error: str = ""
    """why the decode cache cannot be used; empty if it can"""


class BatchReader(TorchDataset[LoadedBatch]):
    """Loads the batch of a `BatchRequest`.

    It holds packed arrays instead of one Python object per image, whose reference counts would make a forked worker
    copy the memory.

    Args:
        split: the images.
        preprocessing: gives the image size, and the resize and crop of requests without an epoch.
        augment: augmentation of requests with an epoch; None: never augment.
        seed: of the augmentation.
        cached: decoded images to read and add to.
        crops: crops to take of each image instead, the first ones for `preprocessing`; without augmentation.
    """

    def __init__(
        self,
        split: Split,
        preprocessing: Preprocessing,
        augment: AugmentOptions | None,
        seed: int,
        cached: CachedImages | None = None,
        crops: Crops | None = None,
    ) -> None:
        self.images: Sequence[Any] = pack_images(split.images)
        self.labels = np.asarray(split.labels, dtype=np.int64)
        self.preprocessing, self.seed, self.cached, self.crops = preprocessing, seed, cached, crops
        self.augmentation = None if augment is None else Augmentation(augment, preprocessing)

    def __getitem__(self, request: BatchRequest) -> LoadedBatch:
        if self.cached is None:
            return self._batch(request)
        with self.cached.batch():
            batch = self._batch(request)
        return batch._replace(cache_error=self.cached.cache.error)

    def close(self) -> None:
        """Close the cache in this process; it is opened again on the next read."""
        if self.cached is not None:
            self.cached.cache.close()

    def _batch(self, request: BatchRequest) -> LoadedBatch:
        images, size = len(request.indices), self.preprocessing.image_size
        crops = [] if self.crops is None else self.crops.empty(images)
        pixels = crops[0][:, 0] if crops else torch.empty(images, 3, size, size, dtype=torch.uint8)
        loaded: list[int] = []
        draws: list[Draw] = []
        failed: list[tuple[int, str, str]] = []
        for index, repeat in zip(request.indices.tolist(), request.repeats.tolist(), strict=True):
            try:
                if self.crops is None:
                    pixels[len(loaded)], draw = self._pixels(index, request.epoch, repeat)
                else:
                    draw = Draw()
                    for preprocessing, of_size in zip(self.crops.sizes, crops, strict=True):
                        image = self._image(index, CachedResize.of_preprocessing(preprocessing))
                        of_size[len(loaded)] = self.crops.of(image, preprocessing)
            except ImageError as error:
                failed.append((index, error.cause, str(error)))
            else:
                loaded.append(index)
                draws.append(draw)
        indices = torch.tensor(loaded, dtype=torch.int64)
        later = Draws.of(draws) if any(draw.ops or draw.mix for draw in draws) else None
        labels = torch.from_numpy(self.labels[loaded])
        kept = tuple(of_size[: len(loaded)] for of_size in crops)
        batch = ImageBatch(pixels[: len(loaded)], labels, indices, later, kept)
        return LoadedBatch(batch, failed)

    def _pixels(self, index: int, epoch: int | None, repeat: int = 0) -> tuple[Tensor, Draw]:
        """Load one image as a uint8 tensor 3,S,S, with the augmentation that is left for the device."""
        if self.augmentation is None or epoch is None:
            return self.preprocessing(self._image(index, CachedResize.of_preprocessing(self.preprocessing))), Draw()
        image = self._image(index, CachedResize.of_augmentation(self.augmentation))
        with seeded(image_seed(self.seed, epoch, index, repeat)):
            return self.augmentation.in_worker(image)

    def _image(self, index: int, resize: CachedResize | None) -> PILImage:
        """Return an image, resized unless `resize` is None, from the cache or else from its file."""
        if resize is None:
            return read_image(self.images[index])
        cached = self.cached if self.cached is not None and self.cached.resize == resize else None
        if cached is not None and (found := cached.get(index)) is not None:
            return found
        path = self.images[index]
        image = resize(read_image(path, resize.side))
        if cached is not None:
            cached.add(index, path, image)
        return image


def prepare_worker(_: int) -> None:
    """Set up a worker process: leave interrupts to the parent, and memory shared."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # not the handler inherited from the parent, which would not exit
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)  # a signal to the parent's group (`timeout`, a terminal) must not kill it mid-batch
    sys.excepthook = _excepthook
    gc.freeze()  # a collection would touch, and so copy, every object that a forked worker got from its parent


def _excepthook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Ignore broken connections: the parent was interrupted while it received a batch."""
    if not issubclass(kind, ConnectionError | EOFError):
        sys.__excepthook__(kind, error, trace)


class _Loader:
    """Loads batches with worker processes and skips images that cannot be read, with one warning per image.

    Attributes:
        failures: why images could not be read so far, by key.

    Args:
        split: the images.
        reader: reads the batches of the split.
        batch_size: images per batch; the last batch may be smaller.
        workers: number of worker processes; 0 loads in this process. Each keeps at most two batches ready.
        pin_memory: copy batches to page-locked memory, for a GPU.
        strict: fail at the first image that cannot be read.
        start_method: "fork", "forkserver" or "spawn"; None: the default of the platform.

    Raises:
        UsageError: the batch size is below 1.
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
            raise UsageError(f"`batch_size={batch_size}` must be at least 1")
        self.split, self.batch_size = split, batch_size
        self.failures: dict[str, str] = {}
        self._reader, self._strict = reader, strict
        self._workers, self._pin_memory, self._start_method = workers, pin_memory, start_method
        self._readable: np.ndarray | None = None
        self._warned = False
        self._sampler = RequestSampler()
        self._torch_loader = self._new_torch_loader()

    def close(self) -> None:
        """Stop the worker processes and close files; the next pass starts them again."""
        self._torch_loader = self._new_torch_loader()
        self._reader.close()

    def skip_pixels(self, readable: np.ndarray | None) -> None:
        """Yield batches without pixels from the next pass on; None: with pixels.

        Args:
            readable: bool N, the images of the split to yield.
        """
        self._readable = readable

    def add_failures(self, reasons: Mapping[str, str]) -> None:
        """Add images, by key, that other processes could not read; warn about new ones."""
        for key, reason in reasons.items():
            self._add_failure(key, reason, f"{key}: {reason}")

    def _add_failure(self, key: str, reason: str, message: str) -> None:
        if key not in self.failures:
            self.failures[key] = reason
            logger.warning(f"skipped: {message}")

    def _new_torch_loader(self) -> DataLoader[Any]:
        workers = self._workers
        return DataLoader(
            Sending(self._reader) if workers else self._reader,
            batch_size=None,  # a request is a batch
            sampler=self._sampler,
            num_workers=workers,
            persistent_workers=workers > 0,
            prefetch_factor=2 if workers else None,
            pin_memory=self._pin_memory,
            worker_init_fn=prepare_worker,
            multiprocessing_context=self._start_method if workers else None,
            generator=torch.Generator(),  # otherwise it would draw from the global one
        )

    def _load(self, batches: list[Batch], epoch: int | None = None) -> Iterator[ImageBatch]:
        """Yield one `ImageBatch` per batch, in order, without the images that cannot be read."""
        if self._readable is not None:
            for batch in batches:
                indices = batch.indices[self._readable[batch.indices]]
                labels = torch.from_numpy(self._reader.labels[indices])
                yield ImageBatch(torch.empty(len(indices), 0, dtype=torch.uint8), labels, torch.from_numpy(indices))
            return
        self._sampler.set_batches(batches, epoch)
        for loaded, failed, cache_error in self._loaded():
            for index, reason, message in failed:
                if self._strict:
                    raise FgvcError(f"{message}; stopped, because `strict_data` is set")
                self._add_failure(self.split.keys[index], reason, message)
            self._warn_of_cache(cache_error)
            yield loaded

    def _loaded(self) -> Iterator[LoadedBatch]:
        """Yield the batches of the sampler, in order; this process loads what its workers cannot."""
        done = 0
        if self._workers:
            for batch in self._sent():
                done += 1
                yield batch
        if not self._workers:
            self._sampler.skip(done)
            yield from self._torch_loader

    def _sent(self) -> Iterator[LoadedBatch]:
        """Yield the batches that the workers send; without workers from the first one on that does not arrive."""
        self._reader.close()  # a forked worker cannot open what is open here
        problem = ""
        with quiet_finalizers():
            try:
                with _child_signals_unchanged():
                    sent = iter(self._torch_loader)
            except (OSError, RuntimeError) as error:
                problem = shortage(error)
            if problem:
                gc.collect()  # the half-built iterator
        if problem:
            self._stop_workers(problem)
            return
        while (item := self._next(sent)) is not None:
            try:
                batch = item.value()
            except FAILURES as error:
                problem = item.problem or shortage(error)
                break
            if item.problem and not self._warned:
                self._warned = True
                logger.warning(f"batches of worker processes are copied, which is slower: {item.problem}")
            yield batch
        if problem:
            del sent
            self._stop_workers(problem)

    def _next(self, sent: Iterator[Any]) -> Any:
        """Return the next item that a worker sent; None at the end.

        Raises:
            FgvcError: a worker was killed.
        """
        try:
            return next(sent, None)
        except RuntimeError as error:
            if not str(error).startswith("DataLoader worker"):
                raise
            self.close()
            raise FgvcError(
                "A worker process that loads images was killed, most likely because memory (or shared memory, "
                "/dev/shm) ran out. Use fewer `workers` or a smaller `batch_size`; `workers=0` starts none"
            ) from error

    def _stop_workers(self, problem: str) -> None:
        """Load images in this process from now on."""
        self._workers = 0
        with quiet_finalizers():
            self.close()
        logger.warning(f"images are loaded without worker processes, which is slower: {problem}")

    def _warn_of_cache(self, error: str) -> None:
        """Warn once per cache, which several loaders may share, that images are decoded instead."""
        cached = self._reader.cached
        if error and cached is not None and not cached.cache.warned:
            cached.cache.warned = True
            logger.warning(f"decode cache {cached.cache.folder}: {error}. Images are decoded instead.")


class TrainingLoader(_Loader):
    """Augmented batches in a new order each epoch.

    The order is a function of (seed, epoch), the augmentation of an image of (seed, epoch, index): neither depends on
    the number of workers or on what was loaded before, and torch's global generator is left untouched.

    Attributes:
        position: number of batches of the current epoch that are done, dropped ones included; pass it as `skip` to
            resume here.

    Args:
        split: images to train on.
        preprocessing: gives image size, resize and interpolation.
        augment: augmentation options.
        batch_size, workers, pin_memory, strict, start_method: see `_Loader`. A last batch of one image is dropped.
        seed: of order and augmentation.
        shard: part of each epoch that this process loads.
        agree: returns whether all processes pass True; a batch that one of them must drop is dropped by all.
        sampling: see `fgvc_cli.data.order.epoch_order`.
        cached: decoded images to read and add to.

    Raises:
        FgvcError: the split has fewer than two images per process.
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
        shard: Shard = WHOLE,
        agree: Callable[[bool], bool] = bool,
        sampling: Sampling = "image",
        cached: CachedImages | None = None,
    ) -> None:
        reader = BatchReader(split, preprocessing, augment, seed, cached)
        super().__init__(split, reader, batch_size, workers, pin_memory, strict, start_method)
        self.seed, self.position = seed, 0
        self._shard, self._agree, self._sampling = shard, agree, sampling
        if len(split) < 2 * shard.world_size:
            each = f" for each of {shard.world_size} processes" if shard.world_size > 1 else ""
            raise FgvcError(f"Training needs at least 2 images{each}, and the {split.name} split has {len(split)}")

    def __len__(self) -> int:
        return batches_in_epoch(len(self.split), self.batch_size, self._shard.world_size)

    def epoch(self, epoch: int, skip: int = 0) -> Generator[ImageBatch, None, None]:
        """Yield the batches of one epoch; those with fewer than two readable images are dropped.

        Args:
            epoch: number of the epoch; the same number gives the same batches.
            skip: number of batches at the beginning that are already done, see `position`.

        Raises:
            FgvcError: an image cannot be read and the loader is strict, no batch can be read, or a worker was killed.
        """
        labels = self._reader.labels
        batches = epoch_batches(labels, self.batch_size, self.seed, epoch, self._shard, self._sampling)[skip:]
        self.position = skip
        trainable = 0
        for batch in self._load(batches, epoch):
            self.position += 1
            if self._agree(len(batch.labels) >= min_batch_size(self.batch_size)):
                trainable += 1
                yield batch
        if batches and not trainable and not skip:
            raise FgvcError(
                f"No batch of the {self.split.name} split could be read: "
                f"{len(self.failures)} of its {len(self.split)} images are unreadable"
            )


class EvaluationLoader(_Loader):
    """The whole split in order, without augmentation. Can be iterated repeatedly, one pass at a time.

    Args:
        split: the images.
        preprocessing: resize and crop.
        batch_size, workers, pin_memory, strict, start_method: see `_Loader`.
        cached: decoded images to read and add to.
        crops: further crops of each image, see `ImageBatch.crops`.

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
        cached: CachedImages | None = None,
        crops: Crops | None = None,
    ) -> None:
        reader = BatchReader(split, preprocessing, None, seed=0, cached=cached, crops=crops)
        super().__init__(split, reader, batch_size, workers, pin_memory, strict, start_method)

    def __len__(self) -> int:
        return -(-len(self.split) // self.batch_size)

    def __iter__(self) -> Iterator[ImageBatch]:
        batches = sequential_batches(len(self.split), self.batch_size)
        return (batch for batch in self._load(batches) if len(batch.labels))


@contextmanager
def _child_signals_unchanged() -> Iterator[None]:
    """Restore the SIGCHLD handler that torch replaces when workers start.

    Torch's handler raises wherever this process is when a worker dies, in the middle of an update too. Without it the
    dead worker is noticed where the next batch is awaited.
    """
    if not hasattr(signal, "SIGCHLD") or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL if before is None else before)
