"""Features of a frozen backbone: computed once per image, and kept on disk for later epochs and runs.

They are kept in a decode cache (`fgvc_cli.data.cache`) whose values are features instead of pixels, under the same size
limit. An image is identified by path, size and modification times (by its pixels if it is not a file), the backbone by
a digest of its modules and weights. Features of a changed image or backbone are computed again.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fgvc_cli import settings
from fgvc_cli.contracts import Backbone, Dataset, EncodedImage, Features, LabeledFeatures, Preprocessing, Reads, Split
from fgvc_cli.data.cache.index import PAGE, CacheTooLarge, mark_used
from fgvc_cli.data.cache.policy import CacheMode, cache_folder, describe_cache, explain_cache_error, reserve
from fgvc_cli.data.cache.store import NO_KEY, CacheUnusable, DecodeCache, image_key
from fgvc_cli.data.images import CachedResize
from fgvc_cli.data.loading import EvaluationLoader
from fgvc_cli.data.splits import pack_images, subset
from fgvc_cli.devices import Precision, autocast
from fgvc_cli.errors import FgvcError
from fgvc_cli.files import FileLock, Locked
from fgvc_cli.formatting import bytes_text
from fgvc_cli.progress import progress
from fgvc_cli.scoring.scores import evaluation_mode

FORMAT = 1
"""Increase when the same image and backbone give other features, or are stored in another way."""

VERSIONED = ("torch", "torchvision", "timm")
"""Packages whose version may change the features of the same weights."""

MEMORY_LIMIT = 2 * 2**30
"""Features of a split are held in memory up to this number of bytes, and read from disk by batch beyond."""


@dataclass(frozen=True)
class FeatureSettings:
    """How features are computed and kept.

    Attributes:
        precision: of the backbone, for autocast.
        batch_size, workers, strict: for reading images, see `EvaluationLoader`.
        cache: "off": not on disk; "auto": if they fit; "on": they must fit.
    """

    precision: Precision = "fp32"
    batch_size: int = 32
    workers: int = 0
    strict: bool = False
    cache: CacheMode = "auto"


@dataclass(frozen=True)
class FrozenBackbone:
    """A backbone whose weights no longer change, and what is read of it.

    Attributes:
        backbone: on its device, with its weights.
        reads: the features to compute.
        preprocessing: of the images; no augmentation is applied.
        flip: whether images are mirrored horizontally.
    """

    backbone: Backbone
    reads: Reads
    preprocessing: Preprocessing
    flip: bool = False

    @cached_property
    def identity(self) -> str:
        """Everything that determines the features of an image."""
        digest = hashlib.sha256(repr(self.backbone).encode())
        for name, value in self.backbone.state_dict().items():
            kept = value.detach().cpu().contiguous()
            digest.update(f"{name} {kept.dtype} {tuple(kept.shape)} ".encode())
            digest.update(kept.reshape(-1).view(torch.uint8).numpy())
        resize = CachedResize.of_preprocessing(self.preprocessing).identity
        versions = {name: metadata.version(name) for name in VERSIONED}
        facts = (self.backbone.info, self.reads, self.preprocessing, self.flip, resize, versions, FORMAT)
        return f"{facts} {digest.hexdigest()}"

    @property
    def description(self) -> str:
        """The features and their backbone as text: "embedding of resnet50 at 224 px"."""
        maps = f"maps {', '.join(map(str, self.reads.maps))}" if self.reads.maps else ""
        what = " and ".join(filter(None, ("embedding" if self.reads.embedding else "", maps)))
        mirrored = ", mirrored" if self.flip else ""
        return f"{what} of {self.backbone.info.name} at {self.preprocessing.image_size} px{mirrored}"

    @cached_property
    def shapes(self) -> dict[int, tuple[int, int, int]]:
        """Shape (C, H, W) of each map."""
        infos = {i: self.backbone.info.maps[i] for i in self.reads.maps}
        return {i: (info.channels, *info.grid) for i, info in infos.items()}

    @property
    def embedding_width(self) -> int:
        """Width D of the embedding; 0 if it is not read."""
        return self.backbone.info.embedding_width if self.reads.embedding else 0

    @property
    def bytes_per_image(self) -> int:
        """Bytes of the features of an image: the embedding in float32, maps in float16."""
        return 4 * self.embedding_width + 2 * sum(map(math.prod, self.shapes.values()))

    def __call__(self, pixels: Tensor, precision: str = "fp32") -> Features:
        """Compute the features of uint8 pixels B,3,S,S, in evaluation mode, without gradient, as float32."""
        device = next(self.backbone.parameters()).device
        mean, std = (
            torch.tensor(v, device=device).view(3, 1, 1) for v in (self.preprocessing.mean, self.preprocessing.std)
        )
        with evaluation_mode(self.backbone), torch.inference_mode(), autocast(device, precision):
            images = pixels.to(device, non_blocking=True) * (1 / (255 * std)) - mean / std
            found = self.backbone(images.flip(-1) if self.flip else images, self.reads)
        embedding = None if found.embedding is None else found.embedding.float()
        return Features({i: value.float() for i, value in found.maps.items()}, embedding)

    def pack(self, features: Features) -> np.ndarray:
        """Return the features of a batch as bytes, uint8 B,`bytes_per_image`.

        Raises:
            FgvcError: a map exceeds the range of half precision.
        """
        columns = [] if features.embedding is None else [features.embedding.cpu().contiguous().numpy()]
        for i, value in features.maps.items():
            half = value.half()
            if not torch.equal(half.isfinite(), value.isfinite()):
                raise FgvcError(
                    f"map {i} of {self.backbone.info.name} has values up to {value.abs().max():.3g}, beyond half "
                    "precision: its features cannot be kept"
                )
            columns.append(half.cpu().contiguous().numpy())
        return np.concatenate([column.reshape(len(column), -1).view(np.uint8) for column in columns], axis=1)

    def unpack(self, rows: np.ndarray) -> Features:
        """Undo `pack`: maps B,C,H,W in float16 and the embedding B,D in float32."""
        start, maps = 4 * self.embedding_width, {}
        embedding = torch.from_numpy(rows[:, :start].copy().view(np.float32)) if start else None
        for i, shape in self.shapes.items():
            end = start + 2 * math.prod(shape)
            maps[i] = torch.from_numpy(rows[:, start:end].copy().view(np.float16).reshape(len(rows), *shape))
            start = end
        return Features(maps, embedding)


@dataclass
class SplitFeatures:
    """The features of a split's images, in memory or on disk; close it after use.

    Attributes:
        frozen: the backbone that computed them.
        split: the images.
        readable: bool N, whether an image could be read and has features.
        failures: why an image could not be read, by its key.
        notes: lines for the user: where they are kept, or why not.
        computed: number of images whose features were computed now; the others were kept from before.
    """

    frozen: FrozenBackbone
    split: Split
    readable: np.ndarray
    failures: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    computed: int = 0
    _keys: Sequence[bytes] = ()
    _rows: np.ndarray | None = None
    _cache: DecodeCache | None = None
    _lock: FileLock | None = None

    def __len__(self) -> int:
        return len(self.split)

    def batch(self, indices: Tensor | np.ndarray | Sequence[int], device: torch.device | str = "cpu") -> Features:
        """Return the features of readable images, by position in the split, as float32 on a device.

        Raises:
            FgvcError: the kept features were removed meanwhile.
        """
        kept = self.frozen.unpack(self._read(np.asarray(indices, dtype=np.int64)))
        embedding = None if kept.embedding is None else kept.embedding.to(device)
        return Features({i: value.to(device).float() for i, value in kept.maps.items()}, embedding)

    def labeled(self, device: torch.device | str = "cpu") -> LabeledFeatures:
        """Return the features and labels of all readable images, in memory on a device.

        Raises:
            FgvcError: features of an image are not finite.
        """
        indices = np.flatnonzero(self.readable)
        labels = torch.from_numpy(np.asarray(self.split.labels, dtype=np.int64)[indices])
        features = self.batch(indices, device)
        for value in (features.embedding, *features.maps.values()):
            if value is None:
                continue
            finite = value.flatten(1).isfinite().all(dim=1)
            if not finite.all():
                first = self.split.keys[indices[int((~finite).nonzero()[0])]]
                raise FgvcError(
                    f"the features of {int((~finite).sum())} of {len(indices)} images in {self.split.name} are NaN or "
                    f"infinite, such as those of {first}; choose other weights, or compute in fp32 (`precision=fp32`)"
                )
        return LabeledFeatures(features, labels.to(device))

    def close(self) -> None:
        """Close the cache, and allow others to remove it."""
        if self._cache is not None:
            self._cache.close()
            mark_used(self._cache.folder)
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _read(self, indices: np.ndarray) -> np.ndarray:
        if self._rows is not None:
            return self._rows[indices]
        assert self._cache is not None
        rows = np.empty((len(indices), self.frozen.bytes_per_image), np.uint8)
        with self._cache.reading() as find:
            for row, index in zip(rows, indices.tolist(), strict=True):
                found = find(self._keys[index])
                if found is None or len(found) != len(row):
                    cause = self._cache.error or f"{self.split.keys[index]} is missing"
                    raise FgvcError(f"the kept features in {self._cache.folder} cannot be read: {cause}; start again")
                row[:] = np.frombuffer(found, np.uint8)
        return rows


def split_features(
    frozen: FrozenBackbone,
    split: Split,
    dataset: Dataset | None,
    options: FeatureSettings = FeatureSettings(),
    on_batch: Callable[[int], object] | None = None,
) -> SplitFeatures:
    """Return the features of a split: those kept by an earlier call are read, the others computed and kept.

    They are held in memory up to `MEMORY_LIMIT` bytes, and otherwise read from the cache by batch.

    Args:
        frozen: the backbone and what to compute.
        split, dataset: the images; images of one dataset share a cache, whatever their split. Without a dataset they
            are not kept.
        options: how to compute and keep them.
        on_batch: called with the number of images of each batch that is computed.

    Raises:
        FgvcError: they do not fit in memory and cannot be kept on disk, or `options.cache` is "on" and they cannot be
            kept; a map exceeds half precision; or an image cannot be read and `options.strict` is set.
    """
    found = SplitFeatures(frozen, split, np.zeros(len(split), dtype=bool), _keys=_image_keys(split))
    size = len(split) * frozen.bytes_per_image
    what = f"features of {split.name} ({frozen.description}, {bytes_text(size)})"
    cause = _open_cache(found, dataset, options)
    if cause and options.cache == "on":
        raise FgvcError(f"`train.cache=on`: {what} cannot be kept: {cause}")
    if size <= MEMORY_LIMIT:
        found._rows = np.empty((len(split), frozen.bytes_per_image), np.uint8)
    elif cause:
        raise FgvcError(f"{what} cannot be kept: {cause}, and more than {bytes_text(MEMORY_LIMIT)} are not in memory")
    found.notes.append(f"{what} {f'are held in memory: {cause}' if cause else _kept_where(found)}")
    try:
        _read_kept(found)
        _compute(found, options, on_batch)
    except BaseException:
        found.close()
        raise
    if found._rows is not None:
        found.close()
    return found


def _image_keys(split: Split) -> list[bytes]:
    return [_image_key(image) for image in split.images]


def _image_key(image: Any) -> bytes:
    """Return a 16-byte digest of an image: of path, size and modification times, or of the pixels of an array."""
    if isinstance(image, str | os.PathLike):
        return image_key(Path(image))
    if isinstance(image, EncodedImage):
        return hashlib.blake2b(f"{image.name} {image.size}".encode(), digest_size=len(NO_KEY)).digest()
    array = np.ascontiguousarray(image)
    start = f"{array.dtype} {array.shape} ".encode()
    return hashlib.blake2b(start + array.tobytes(), digest_size=len(NO_KEY)).digest()


def _open_cache(found: SplitFeatures, dataset: Dataset | None, options: FeatureSettings) -> str:
    """Open the cache on disk; return why there is none, or an empty text."""
    if options.cache == "off" or dataset is None:
        return "`train.cache=off`"
    if options.cache == "auto" and not settings.current().cache_limit:
        return "`cache_limit=0`"
    about = describe_cache(dataset, found.frozen.description, f"{found.frozen.identity} {options.precision}")
    cache = DecodeCache(cache_folder(about), 0, patient=True)
    each = -(-(found.frozen.bytes_per_image + 64) // PAGE) * PAGE
    try:
        found._lock, _ = reserve(cache, about, found._keys, each, found.notes)
    except (CacheTooLarge, CacheUnusable, Locked, FgvcError, OSError) as error:
        return explain_cache_error(error)
    found._cache = cache
    return ""


def _kept_where(found: SplitFeatures) -> str:
    assert found._cache is not None
    present = found._cache.count(found._keys)
    return f"are kept in {found._cache.folder}: {present} of {len(found)} so far"


def _read_kept(found: SplitFeatures) -> None:
    """Find the images whose features are kept, and read them if they are to be in memory."""
    if found._cache is None:
        return
    with found._cache.reading() as find:
        for i, key in enumerate(found._keys):
            value = find(key)
            if value is None or len(value) != found.frozen.bytes_per_image:
                continue
            found.readable[i] = True
            if found._rows is not None:
                found._rows[i] = np.frombuffer(value, np.uint8)


def _compute(found: SplitFeatures, options: FeatureSettings, on_batch: Callable[[int], object] | None) -> None:
    """Compute and keep the features of the other images."""
    frozen, missing = found.frozen, np.flatnonzero(~found.readable)
    if not len(missing):
        return
    split = subset(found.split, missing, found.split.name, found.split.origin)
    pinned = next(frozen.backbone.parameters()).is_cuda
    loader = EvaluationLoader(split, frozen.preprocessing, options.batch_size, options.workers, pinned, options.strict)
    images = pack_images(found.split.images)
    try:
        with progress(f"features of {found.split.name}", len(missing)) as bar:
            for batch in loader:
                indices = missing[batch.indices.numpy()]
                rows = frozen.pack(frozen(batch.pixels, options.precision))
                found.readable[indices] = True
                if found._rows is not None:
                    found._rows[indices] = rows
                _keep(found, images, indices, rows)
                found.computed += len(indices)
                bar.advance(len(indices))
                if on_batch is not None:
                    on_batch(len(indices))
    finally:
        loader.close()
    found.failures = dict(loader.failures)


def _keep(found: SplitFeatures, images: Sequence[Any], indices: np.ndarray, rows: np.ndarray) -> None:
    """Write features to the cache, except those of files that were replaced after their key was computed.

    Raises:
        FgvcError: the cache cannot be written, and they are not in memory either.
    """
    if found._cache is None:
        return
    values = []
    for index, row in zip(indices.tolist(), rows, strict=True):
        key = found._keys[index]
        if key != NO_KEY and _image_key(images[index]) == key:
            values.append((key, row.tobytes()))
        elif found._rows is None:
            raise FgvcError(f"{images[index]} changed while its features were computed; start again")
    found._cache.write(values)
    if found._cache.error and found._rows is None:
        raise FgvcError(f"features cannot be kept in {found._cache.folder}: {found._cache.error}")
