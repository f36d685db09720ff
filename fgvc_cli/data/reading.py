"""Read, decode and augment the images of a batch: the part of loading that runs in worker processes."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from fgvc_cli.config.train_options import AugmentOptions
from fgvc_cli.contracts import Preprocessing, Split
from fgvc_cli.data.augmentation import Augmentation
from fgvc_cli.data.batch_augmentation.draws import Draw, Draws
from fgvc_cli.data.cache.resize import CachedResize
from fgvc_cli.data.cache.store import CachedImages
from fgvc_cli.data.images import ImageError, read_image
from fgvc_cli.data.order import BatchRequest, image_seed, seeded
from fgvc_cli.data.splits import pack_images

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage


class ImageBatch(NamedTuple):
    """A batch of images."""

    pixels: Tensor
    """uint8 B,3,S,S, not normalized"""
    labels: Tensor
    """int64 B"""
    indices: Tensor
    """int64 B, into the split"""
    draws: Draws | None = None
    """augmentation left for the device; None: nothing"""


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
    """

    def __init__(
        self,
        split: Split,
        preprocessing: Preprocessing,
        augment: AugmentOptions | None,
        seed: int,
        cached: CachedImages | None = None,
    ) -> None:
        self.images: Sequence[Any] = pack_images(split.images)
        self.labels = np.asarray(split.labels, dtype=np.int64)
        self.preprocessing, self.seed, self.cached = preprocessing, seed, cached
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
        size = self.preprocessing.image_size
        pixels = torch.empty(len(request.indices), 3, size, size, dtype=torch.uint8)
        loaded: list[int] = []
        draws: list[Draw] = []
        failed: list[tuple[int, str, str]] = []
        for index, repeat in zip(request.indices.tolist(), request.repeats.tolist(), strict=True):
            try:
                pixels[len(loaded)], draw = self._pixels(index, request.epoch, repeat)
            except ImageError as error:
                failed.append((index, error.cause, str(error)))
            else:
                loaded.append(index)
                draws.append(draw)
        indices = torch.tensor(loaded, dtype=torch.int64)
        later = Draws.of(draws) if any(draw.ops or draw.mix for draw in draws) else None
        batch = ImageBatch(pixels[: len(loaded)], torch.from_numpy(self.labels[loaded]), indices, later)
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
        os.setpgid(0, 0)  # a signal to the parent's group (`timeout`, a terminal) must not kill it in mid-batch
    sys.excepthook = _excepthook
    gc.freeze()  # a collection would touch, and so copy, every object that a forked worker got from its parent


def _excepthook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Ignore broken connections: the parent was interrupted while it received a batch."""
    if not issubclass(kind, ConnectionError | EOFError):
        sys.__excepthook__(kind, error, trace)
