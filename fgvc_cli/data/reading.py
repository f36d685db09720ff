"""Reads, decodes and transforms the images of a batch: the part of loading that runs in worker processes."""

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
from fgvc_cli.data.cache.store import KeptImages
from fgvc_cli.data.images import ImageError, read_image
from fgvc_cli.data.order import Request, image_seed, seeded
from fgvc_cli.data.splits import pack_images

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage


class LoadedBatch(NamedTuple):
    """What a request becomes: the images that could be read, and (index, cause, message) of those that could not."""

    pixels: Tensor  # uint8 B,3,S,S
    labels: Tensor  # int64 B
    indices: Tensor  # int64 B
    failed: list[tuple[int, str, str]]
    trouble: str = ""  # what is wrong with the store of decoded images
    draws: Draws | None = None  # what is left to do to the images; None: nothing


class BatchReader(TorchDataset[LoadedBatch]):
    """Loads the images that a request names.

    It holds what workers need and no more, in arrays: no Python object an image that forking would copy.

    Args:
        split: the images.
        preprocessing: gives size and shape of what comes out.
        augment: what to do to images of a request with an epoch; None: nothing, whatever the request.
        seed: of the augmentation.
        kept: where images are that were decoded before; None: nowhere.
    """

    def __init__(
        self,
        split: Split,
        preprocessing: Preprocessing,
        augment: AugmentOptions | None,
        seed: int,
        kept: KeptImages | None = None,
    ) -> None:
        self.images: Sequence[Any] = pack_images(split.images)
        self.labels = np.asarray(split.labels, dtype=np.int64)
        self.preprocessing, self.seed, self.kept = preprocessing, seed, kept
        self.augmentation = None if augment is None else Augmentation(augment, preprocessing)

    def __getitem__(self, request: Request) -> LoadedBatch:
        if self.kept is None:
            return self._batch(request)
        with self.kept.batch():
            batch = self._batch(request)
        return batch._replace(trouble=self.kept.trouble)

    def close(self) -> None:
        """Let go of files, in this process; they are opened again when they are needed."""
        if self.kept is not None:
            self.kept.store.close()

    def _batch(self, request: Request) -> LoadedBatch:
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
        batch = LoadedBatch(pixels[: len(loaded)], torch.from_numpy(self.labels[loaded]), indices, failed)
        return batch._replace(draws=Draws.of(draws)) if any(draw.notes or draw.mix for draw in draws) else batch

    def _pixels(self, index: int, epoch: int | None, repeat: int = 0) -> tuple[Tensor, Draw]:
        """Load one image as a uint8 tensor 3,S,S, and draw what is left to do to it."""
        if self.augmentation is None or epoch is None:
            return self.preprocessing(self._image(index, CachedResize.resized(self.preprocessing))), Draw()
        image = self._image(index, CachedResize.augmented(self.augmentation))
        with seeded(image_seed(self.seed, epoch, index, repeat)):
            return self.augmentation.begun(image)

    def _image(self, index: int, rendition: CachedResize | None) -> PILImage:
        """Return an image in a rendition (None: whole), from the store or else from its file."""
        if rendition is None:
            return read_image(self.images[index])
        kept = self.kept if self.kept is not None and self.kept.rendition == rendition else None
        if kept is not None and (found := kept.get(index)) is not None:
            return found
        path = self.images[index]
        image = rendition(read_image(path, rendition.side))
        if kept is not None:
            kept.add(index, path, image)
        return image


def prepare_worker(_: int) -> None:
    """Set up a worker process: an interruption is the parent's to handle, and shared memory is left alone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the parent's handler, which forking passed on, would not end it
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)  # what is sent to the whole group (`timeout`, a terminal) must not kill it in mid-batch
    sys.excepthook = _excepthook
    gc.freeze()  # a collection would touch, and so copy, every object that a forked worker got from its parent


def _excepthook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Say nothing of a connection that breaks off: the parent was interrupted while it took a batch."""
    if not issubclass(kind, ConnectionError | EOFError):
        sys.__excepthook__(kind, error, trace)
