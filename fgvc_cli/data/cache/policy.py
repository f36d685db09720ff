"""Decide whether a training run caches its decoded images, at which size, and where."""

from __future__ import annotations

import hashlib
import os
import platform
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from fgvc_cli import files, settings
from fgvc_cli.config.train_options import AugmentOptions
from fgvc_cli.contracts import Dataset, EncodedImage, Preprocessing, Split
from fgvc_cli.data.augmentation import Augmentation
from fgvc_cli.data.cache import index, store
from fgvc_cli.data.cache.index import CacheTooLarge
from fgvc_cli.data.cache.store import CacheDamaged, CachedImages, CacheUnusable, DecodeCache
from fgvc_cli.data.images import CachedResize
from fgvc_cli.errors import FgvcError
from fgvc_cli.files import FileLock, Locked
from fgvc_cli.formatting import bytes_text
from fgvc_cli.launch import launched

CacheMode = Literal["auto", "on", "off"]
"""Values of `train.cache`."""

STALE = 2
"""A cache that must grow and has no room is emptied if it is at least this many times the size that is needed."""

TRIES, TIMEOUT = 5, 1.0
"""Number of attempts, and seconds to wait in each, while other processes remove a cache that is being opened."""


@dataclass
class TrainingCache:
    """Cached images of a training run (None: decoded in every epoch), notes for the user, and locks on the caches."""

    train: CachedImages | None = None
    val: CachedImages | None = None
    notes: list[str] = field(default_factory=list)
    in_use: list[FileLock] = field(default_factory=list)

    def close(self) -> None:
        """Close the caches and allow others to remove them."""
        for images in (self.train, self.val):
            if images is not None:
                images.cache.close()
                index.mark_used(images.cache.folder)
        for lock in self.in_use:
            lock.close()
        self.in_use.clear()


def training_cache(
    mode: CacheMode,
    dataset: Dataset,
    train: Split,
    val: Split | None,
    preprocessing: Preprocessing,
    augment: AugmentOptions,
) -> TrainingCache:
    """Open the decode caches of the splits that a training run reads in every epoch.

    Images in memory are not cached, nor training images whose augmentation starts from the whole image.

    Args:
        mode: "off": no cache; "auto": if the images fit; "on": they must fit.
        dataset: of the splits.
        train, val: training and validation split.
        preprocessing, augment: applied to the images.

    Raises:
        FgvcError: `mode` is "on", and the images do not fit, they are not in files of their own, or the cache directory
            cannot be used.
    """
    cache = TrainingCache()
    if mode == "off" or (mode == "auto" and not settings.current().cache_limit):
        return cache
    of_train = CachedResize.of_augmentation(Augmentation(augment, preprocessing))
    of_val = CachedResize.of_preprocessing(preprocessing)
    by_resize: dict[CachedResize, dict[str, Split]] = {}
    for name, split, resize in (("train", train, of_train), ("val", val, of_val)):
        if resize is None:
            cache.notes.append("training images are decoded in every epoch: `augment.before_resize` needs them whole")
        elif split is not None and len(split) and all(isinstance(image, str | os.PathLike) for image in split.images):
            by_resize.setdefault(resize, {})[name] = split
        elif mode == "on" and split is not None and len(split) and isinstance(split.images[0], EncodedImage):
            raise FgvcError(
                f"`train.cache=on`: images in files of their own can be cached, and those of {dataset.name} are not; "
                "leave it out"
            )
    for resize, splits in by_resize.items():
        what = f"decoded images ({' and '.join(splits)}, {resize.description})"
        try:
            _open(cache, dataset, resize, splits, what)
        except (CacheTooLarge, CacheUnusable, Locked, FgvcError, OSError) as error:
            if mode == "on":
                cache.close()
                raise FgvcError(f"`train.cache=on`: {what} cannot be cached: {explain_cache_error(error)}") from error
            cache.notes.append(f"{what} are not cached: {explain_cache_error(error)}; they are decoded in every epoch")
    return cache


def _open(cache: TrainingCache, dataset: Dataset, resize: CachedResize, splits: dict[str, Split], what: str) -> None:
    """Open a decode cache, and make room for the images of the splits that it lacks."""
    about = describe_cache(dataset, resize.description, resize.identity)
    images = DecodeCache(cache_folder(about), 0)
    by_split = {name: CachedImages(images, resize, list[Any](split.images)) for name, split in splits.items()}
    keys = [key.tobytes() for cached in by_split.values() for key in cached.keys]
    paths: list[Any] = [image for split in splits.values() for image in split.images]
    each = index.bytes_per_image(resize, paths)
    lock, present = reserve(images, about, keys, each, cache.notes)
    cache.in_use.append(lock)
    cache.train, cache.val = by_split.get("train", cache.train), by_split.get("val", cache.val)
    total = bytes_text(len(keys) * each)
    cache.notes.append(f"{what} are cached in {images.folder}: {present} of {len(keys)} so far, about {total} in total")


def cache_folder(about: Mapping[str, str]) -> Path:
    """Return the folder of the cache with these contents of `about.json`, which must never change."""
    digest = hashlib.sha256(repr(about).encode("utf-8", "surrogateescape")).hexdigest()
    return settings.current().cache.absolute() / index.IMAGES / digest[:16]


def reserve(
    cache: DecodeCache, about: Mapping[str, str], keys: Sequence[bytes], each: float, notes: list[str]
) -> tuple[FileLock, int]:
    """Create a cache, or verify the existing one, and make room for what it lacks.

    Args:
        cache: in the `cache_folder` of `about`; its `max_size` is set.
        about: contents of `about.json`: "data", "rendition" and more.
        keys: of the values that the cache shall hold.
        each: bytes that a value takes, about.
        notes: lines for the user are added here.

    Returns:
        The lock that keeps other processes from removing the cache, and the number of values that it has.

    Raises:
        CacheTooLarge: the values do not fit.
        CacheUnusable, Locked, FgvcError, OSError: the cache cannot be used.
    """
    folder, root = cache.folder, settings.current().cache.absolute()
    index.remove_leftovers(root)
    if not folder.exists():  # first of all, so that nothing is created if there is no room
        _make_room(notes, root, folder, len(keys) * each)
    with ExitStack() as on_failure:
        lock = _lock_and_create(folder, dict(about), notes)
        on_failure.callback(lock.close)
        present = cache.count(keys)
        cache.close()
        if cache.read_error:
            raise CacheUnusable(f"{folder}: {cache.read_error}")
        more = (len(keys) - present) * each
        try:
            _make_room(notes, root, folder, more)
        except CacheTooLarge:
            has_others = store.count_images(folder) > present
            if not has_others or index.disk_size(folder) < STALE * len(keys) * each:
                raise
            lock.close()
            if not index.remove_idle(folder):
                raise
            notes.append(f"{folder}: emptied, because most of its images are of files that have changed")
            return reserve(cache, about, keys, each, notes)
        index.set_expected_size(folder, index.disk_size(folder) + more)
        cache.max_size = index.max_size(root, folder)
        on_failure.pop_all()
    return lock, present


def _make_room(notes: list[str], root: Path, folder: Path, more: float) -> None:
    for info in index.make_room(root, folder, more):
        day = time.strftime("%Y-%m-%d", time.localtime(info.used))
        notes.append(
            f"removed to make room: cached images of {info.data} ({info.resize}), "
            f"{bytes_text(info.bytes)}, last used {day}"
        )


def _lock_and_create(folder: Path, about: dict[str, str], notes: list[str]) -> FileLock:
    """Create a cache, or verify the existing one, and return the lock that keeps others from removing it."""
    for _ in range(TRIES):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock = FileLock(folder / index.USE_LOCK, shared=True, timeout=TIMEOUT)
        except FileNotFoundError:  # the folder was removed meanwhile
            continue
        try:
            if not lock.is_of(folder / index.USE_LOCK):
                lock.close()
                continue
            store.create(folder)
            if not (folder / index.ABOUT).exists():
                files.write_json(folder / index.ABOUT, about)
        except CacheDamaged as error:
            lock.close()
            if not index.remove_idle(folder):
                raise CacheUnusable(f"{folder}: {error}, and other runs use it") from error
            notes.append(f"{folder}: {error}; emptied")
        except BaseException:
            lock.close()
            raise
        else:
            index.mark_used(folder)
            return lock
    raise CacheUnusable(f"other processes keep removing {folder}")


def describe_cache(dataset: Dataset, rendition: str, identity: str) -> dict[str, str]:
    """Return the contents of `about.json`; the folder's name is a digest of it, so it must never change.

    Args:
        dataset: of the images.
        rendition: what is kept of each image, for the user.
        identity: everything that determines the values, apart from the images.
    """
    folder = str(dataset.identity().get("folder", ""))
    about = {"data": f"{dataset.name} ({folder})" if folder else dataset.name, "rendition": rendition}
    about["identity"] = identity
    launch = launched()
    if launch.count != launch.local_count:  # the directory may be shared, and LMDB's locks work within one machine
        about["machine"] = platform.node()
    return about


def explain_cache_error(error: Exception) -> str:
    """Return why a cache cannot be used, without a full stop."""
    if isinstance(error, Locked):
        return "another process is removing them"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error).rstrip(".")
