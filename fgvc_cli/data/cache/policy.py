"""Whether a training caches its decoded images, at which size, and where."""

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
from fgvc_cli.data.cache import environment
from fgvc_cli.data.cache.environment import Damaged, Unusable
from fgvc_cli.data.cache.index import (
    ABOUT,
    IMAGES,
    USE,
    NoRoom,
    bytes_per_image,
    expect,
    limit,
    make_room,
    mark_used,
    most,
    remove_idle,
    size,
    sweep,
)
from fgvc_cli.data.cache.locks import FileLock, Locked
from fgvc_cli.data.cache.resize import CachedResize
from fgvc_cli.data.cache.store import ImageStore, KeptImages
from fgvc_cli.errors import FgvcError
from fgvc_cli.formatting import bytes_text
from fgvc_cli.launch import launched

Wanted = Literal["auto", "on", "off"]
"""What `train.cache` may be."""

STALE = 2
"""A store that must grow and has no room is begun anew if it is so many times what the present images need."""

TRIES, PATIENCE = 5, 1.0
"""How often, and for how many seconds each time, to try when another process removes a store just as it is opened."""


@dataclass
class TrainingCache:
    """What a training keeps of the images it decodes.

    Attributes:
        train, val: the images of each split in their store; None where they are decoded in every epoch.
        notes: lines that a person should know.
        in_use: keep others from removing the stores.
    """

    train: KeptImages | None = None
    val: KeptImages | None = None
    notes: list[str] = field(default_factory=list)
    in_use: list[FileLock] = field(default_factory=list)

    def close(self) -> None:
        """Let go of the stores: others may remove them now."""
        for kept in (self.train, self.val):
            if kept is not None:
                kept.store.close()
                mark_used(kept.store.folder)
        for lock in self.in_use:
            lock.close()
        self.in_use.clear()


def training_cache(
    wanted: Wanted,
    dataset: Dataset,
    train: Split,
    val: Split | None,
    preprocessing: Preprocessing,
    augment: AugmentOptions,
) -> TrainingCache:
    """Open the stores of a training: of the splits that it reads in every epoch.

    Images in memory are not kept, nor training images whose augmentation begins with the whole photograph.

    Args:
        wanted: "off": none; "auto": where they fit; "on": they must.
        dataset: of the splits.
        train, val: what is trained on and what chooses the best epoch.
        preprocessing, augment: what is done to the images.

    Raises:
        FgvcError: they do not fit, or the cache folder cannot be used, and it must be (`on`).
    """
    cache = TrainingCache()
    if wanted == "off" or (wanted == "auto" and not limit()):
        return cache
    augmented = CachedResize.augmented(Augmentation(augment, preprocessing))
    splits: dict[CachedResize, dict[str, Split]] = {}
    for name, split, rendition in (("train", train, augmented), ("val", val, CachedResize.resized(preprocessing))):
        if rendition is None:
            cache.notes.append("training images are decoded in every epoch: augment.before_resize needs them whole")
        elif split is not None and len(split) and all(isinstance(image, str | os.PathLike) for image in split.images):
            splits.setdefault(rendition, {})[name] = split
    for rendition, those in splits.items():
        what = f"decoded images ({' and '.join(those)}, {rendition.words})"
        try:
            _add(cache, dataset, rendition, those, what)
        except (NoRoom, Unusable, Locked, FgvcError, OSError) as error:
            if wanted == "on":
                cache.close()
                raise FgvcError(f"train.cache=on: {what} cannot be kept: {_cause(error)}.") from error
            cache.notes.append(f"{what} are not kept: {_cause(error)}; every epoch decodes them anew")
    return cache


def _add(cache: TrainingCache, dataset: Dataset, rendition: CachedResize, splits: dict[str, Split], what: str) -> None:
    """Open a store, and make room for what it lacks of the splits."""
    about, root = _about(dataset, rendition), settings.current().cache.absolute()
    folder = root / IMAGES / hashlib.sha256(repr(about).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    paths: list[Any] = [image for split in splits.values() for image in split.images]
    each = bytes_per_image(rendition, paths)
    sweep(root)
    if not folder.exists():  # before it is made, so that nothing is left of one that has no room
        _make_room(cache, root, folder, len(paths) * each)
    with ExitStack() as unless_it_works:
        lock = _taken(folder, about, cache.notes)
        unless_it_works.callback(lock.close)
        store = ImageStore(folder, 0)
        kept = {name: KeptImages(store, rendition, list[Any](split.images)) for name, split in splits.items()}
        there = sum(images.count() for images in kept.values())
        store.close()
        if store.trouble:
            raise Unusable(f"{folder}: {store.trouble}")
        try:
            _make_room(cache, root, folder, (len(paths) - there) * each)
        except NoRoom:
            if size(folder) < STALE * len(paths) * each:
                raise
            lock.close()
            if not remove_idle(folder):
                raise
            cache.notes.append(f"{folder}: most of the images in it were of files that have changed; it begins anew")
            return _add(cache, dataset, rendition, splits, what)
        expect(folder, size(folder) + (len(paths) - there) * each)
        store.most = most(root, folder)
        unless_it_works.pop_all()
    cache.in_use.append(lock)
    cache.train, cache.val = kept.get("train", cache.train), kept.get("val", cache.val)
    cache.notes.append(
        f"{what} are kept in {folder}: {there} of {len(paths)}, in all about {bytes_text(len(paths) * each)}"
    )
    return None


def _make_room(cache: TrainingCache, root: Path, folder: Path, more: float) -> None:
    for removed in make_room(root, folder, more):
        day = time.strftime("%Y-%m-%d", time.localtime(removed.used))
        cache.notes.append(
            f"removed to make room: decoded images of {removed.data} ({removed.rendition}), "
            f"{bytes_text(removed.bytes)}, last used {day}"
        )


def _taken(folder: Path, about: dict[str, str], notes: list[str]) -> FileLock:
    """Make a store, or check the one that is there, and return the lock that keeps others from removing it."""
    for _ in range(TRIES):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock = FileLock(folder / USE, shared=True, patience=PATIENCE)
        except FileNotFoundError:  # the folder was removed this moment
            continue
        try:
            if not lock.is_of(folder / USE):
                lock.close()
                continue
            environment.create(folder)
            if not (folder / ABOUT).exists():
                files.write_json(folder / ABOUT, about)
        except Damaged as error:
            lock.close()
            if not remove_idle(folder):
                raise Unusable(f"{folder}: {error}, and other runs use it") from error
            notes.append(f"{folder}: {error}; it begins anew")
        except BaseException:
            lock.close()
            raise
        else:
            mark_used(folder)
            return lock
    raise Unusable(f"other processes keep removing {folder}")


def _about(dataset: Dataset, rendition: CachedResize) -> dict[str, str]:
    """Return what a store is of, in words; its name is made of this."""
    folder = str(dataset.identity().get("folder", ""))
    about = {"data": f"{dataset.name} ({folder})" if folder else dataset.name, "rendition": rendition.words}
    about["identity"] = rendition.identity
    launch = launched()
    if launch.count != launch.local_count:  # the cache folder may be shared, and LMDB's locks work within a machine
        about["machine"] = platform.node()
    return about


def _cause(error: Exception) -> str:
    if isinstance(error, Locked):
        return "another process is removing them"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error).rstrip(".")
