"""Decide whether a training run caches its decoded images, at which size, and where."""

from __future__ import annotations

import hashlib
import os
import platform
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from fgvc_cli import files, settings
from fgvc_cli.config.train_options import AugmentOptions
from fgvc_cli.contracts import Dataset, Preprocessing, Split
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
        FgvcError: `mode` is "on", and the images do not fit or the cache directory cannot be used.
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
    for resize, splits in by_resize.items():
        what = f"decoded images ({' and '.join(splits)}, {resize.description})"
        try:
            _open(cache, dataset, resize, splits, what)
        except (CacheTooLarge, CacheUnusable, Locked, FgvcError, OSError) as error:
            if mode == "on":
                cache.close()
                raise FgvcError(f"`train.cache=on`: {what} cannot be cached: {_cause(error)}") from error
            cache.notes.append(f"{what} are not cached: {_cause(error)}; they are decoded in every epoch")
    return cache


def _open(cache: TrainingCache, dataset: Dataset, resize: CachedResize, splits: dict[str, Split], what: str) -> None:
    """Open a decode cache, and make room for the images of the splits that it lacks."""
    about, root = _about(dataset, resize), settings.current().cache.absolute()
    digest = hashlib.sha256(repr(about).encode("utf-8", "surrogateescape")).hexdigest()
    folder = root / index.IMAGES / digest[:16]
    paths: list[Any] = [image for split in splits.values() for image in split.images]
    each = index.bytes_per_image(resize, paths)
    index.remove_leftovers(root)
    if not folder.exists():  # first of all, so that nothing is created if there is no room
        _make_room(cache, root, folder, len(paths) * each)
    with ExitStack() as on_failure:
        lock = _lock_and_create(folder, about, cache.notes)
        on_failure.callback(lock.close)
        images = DecodeCache(folder, 0)
        by_split = {name: CachedImages(images, resize, list[Any](split.images)) for name, split in splits.items()}
        present = sum(cached.count() for cached in by_split.values())
        images.close()
        if images.read_error:
            raise CacheUnusable(f"{folder}: {images.read_error}")
        more = (len(paths) - present) * each
        try:
            _make_room(cache, root, folder, more)
        except CacheTooLarge:
            has_others = store.count_images(folder) > present
            if not has_others or index.disk_size(folder) < STALE * len(paths) * each:
                raise
            lock.close()
            if not index.remove_idle(folder):
                raise
            cache.notes.append(f"{folder}: emptied, because most of its images are of files that have changed")
            _open(cache, dataset, resize, splits, what)
            return
        index.set_expected_size(folder, index.disk_size(folder) + more)
        images.max_size = index.max_size(root, folder)
        on_failure.pop_all()
    cache.in_use.append(lock)
    cache.train, cache.val = by_split.get("train", cache.train), by_split.get("val", cache.val)
    total = bytes_text(len(paths) * each)
    cache.notes.append(f"{what} are cached in {folder}: {present} of {len(paths)} so far, about {total} in total")


def _make_room(cache: TrainingCache, root: Path, folder: Path, more: float) -> None:
    for info in index.make_room(root, folder, more):
        day = time.strftime("%Y-%m-%d", time.localtime(info.used))
        cache.notes.append(
            f"removed to make room: decoded images of {info.data} ({info.resize}), "
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


def _about(dataset: Dataset, resize: CachedResize) -> dict[str, str]:
    """Return the contents of `about.json`; the folder's name is a digest of it, so it must never change."""
    folder = str(dataset.identity().get("folder", ""))
    about = {"data": f"{dataset.name} ({folder})" if folder else dataset.name, "rendition": resize.description}
    about["identity"] = resize.identity
    launch = launched()
    if launch.count != launch.local_count:  # the directory may be shared, and LMDB's locks work within one machine
        about["machine"] = platform.node()
    return about


def _cause(error: Exception) -> str:
    if isinstance(error, Locked):
        return "another process is removing them"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error).rstrip(".")
