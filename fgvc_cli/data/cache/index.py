"""The decode caches on disk: list them, remove them, keep them within the limit."""

from __future__ import annotations

import json
import os
import shutil
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fgvc_cli import files, settings
from fgvc_cli.data.images import CachedResize
from fgvc_cli.errors import FgvcError, UsageError, did_you_mean
from fgvc_cli.files import FileLock, Locked
from fgvc_cli.formatting import bytes_text, expanded

IMAGES, ABOUT, USE_LOCK = "images", "about.json", "use.lock"
"""Names: folder of all decode caches below the cache directory, and files in each."""

REMOVED = ".removed-"
"""Name prefix of a cache that is being removed."""


@dataclass(frozen=True)
class CacheInfo:
    """A decode cache on disk. The JSON keys are these names, but "rendition" for `resize`.

    Attributes:
        path: its folder.
        data: name of the dataset, and its folder if it has one: `photos (/home/me/photos)`.
        resize: description of the size and interpolation of the images.
        images: number of images; 0 if it cannot be read.
        bytes: on disk.
        used: when it was last used, Unix time.
    """

    path: Path
    data: str
    resize: str
    images: int
    bytes: int
    used: float

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        document = dict(vars(self))
        document["rendition"] = document.pop("resize")
        return document

    def is_of(self, name: str) -> bool:
        """Return whether it belongs to the dataset of this name, or to the folder of this path."""
        folder = expanded(name).absolute()
        return self.data == name or self.data.startswith(f"{name} (") or self.data.endswith(f" ({folder})")


def list_caches(root: Path, names: Sequence[str] = ()) -> list[CacheInfo]:
    """List the decode caches below `root`, the last used first; `names`: only those of these datasets or folders.

    Raises:
        UsageError: a name has no cache.
    """
    from fgvc_cli.data.cache.store import count_images  # imports LMDB, for which listing nothing should not wait

    try:
        folders = [path for path in (root / IMAGES).iterdir() if path.is_dir() and not path.name.startswith(".")]
    except OSError:
        folders = []
    found = []
    for path in sorted(folders):
        about = read_about(path)
        data, resize = (str(about.get(name, "unknown")) for name in ("data", "rendition"))
        with suppress(FileNotFoundError):  # removed meanwhile
            found.append(CacheInfo(path, data, resize, count_images(path), disk_size(path), last_used(path)))
    found.sort(key=lambda info: -info.used)
    for name in names:
        if not any(info.is_of(name) for info in found):
            known = sorted({info.data for info in found})
            raise UsageError(
                f"{name} has no decode cache.{did_you_mean(name, known)} Cached: {'; '.join(known) or 'nothing'}"
            )
    return [info for info in found if not names or any(info.is_of(name) for name in names)]


def clear(root: Path, caches: Sequence[CacheInfo]) -> int:
    """Remove caches and return the bytes freed.

    A run that uses a removed cache decodes its images again; the disk space is free once it notices, within a batch.

    Raises:
        FgvcError: a cache cannot be removed.
    """
    remove_leftovers(root)
    return sum(remove(info.path) for info in caches)


def remove(folder: Path) -> int:
    """Remove a cache atomically and return the bytes freed.

    Raises:
        FgvcError: it cannot be removed.
    """
    freed = disk_size(folder)
    aside = folder.with_name(f"{REMOVED}{folder.name}-{uuid.uuid4().hex}")
    try:
        folder.rename(aside)
        shutil.rmtree(aside)
    except FileNotFoundError:  # another process was faster
        return 0
    except OSError as error:
        raise FgvcError(f"cannot remove {folder}: {error.strerror or error}") from error
    return freed


def remove_idle(folder: Path) -> bool:
    """Remove a cache unless it is in use; return whether it no longer exists."""
    try:
        lock = FileLock(folder / USE_LOCK, shared=False)
    except Locked:
        return False
    except OSError:
        return not folder.exists()
    try:
        remove(folder)
    except FgvcError:
        return False
    finally:
        lock.close()
    return True


def remove_leftovers(root: Path) -> None:
    """Remove caches whose removal was interrupted."""
    with suppress(OSError):
        for left in (root / IMAGES).glob(f"{REMOVED}*"):
            shutil.rmtree(left, ignore_errors=True)


def disk_size(folder: Path) -> int:
    """Return the bytes of a cache on disk."""
    total = 0
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(OSError):
                total += entry.stat().st_size
    return total


def last_used(folder: Path) -> float:
    """Return when a cache was last used, Unix time."""
    about = folder / ABOUT
    return (about if about.exists() else folder).stat().st_mtime


def mark_used(folder: Path) -> None:
    """Record that a cache is used now."""
    with suppress(OSError):  # removed, or not writable
        os.utime(folder / ABOUT, (time.time(),) * 2)


def set_expected_size(folder: Path, size: float) -> None:
    """Record the bytes that a cache will take once the current run has filled it.

    Raises:
        FgvcError: it cannot be written.
    """
    files.write_json(folder / ABOUT, {**read_about(folder), "expected": round(size)})


def expected_size(folder: Path) -> int:
    """Return the bytes that the last run expected a cache to take; 0 if unknown."""
    size = read_about(folder).get("expected")
    return size if isinstance(size, int) else 0


def read_about(folder: Path) -> dict[str, Any]:
    """Return what a cache records about itself; empty if that cannot be read."""
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return about if isinstance(about, dict) else {}


SAMPLE = 32
"""Number of images whose sizes are read to estimate the size of a cache."""

RESERVED_FRACTION, RESERVED_BYTES = 0.1, 5 * 10**9
"""Disk space that stays free: a fraction of the disk, or a number of bytes if that is less."""

PAGE = 4096
OVERHEAD = 1.01
"""Factor for LMDB's index."""


class CacheTooLarge(Exception):  # noqa: N818, the caller decides whether this is an error
    """A cache does not fit; the message gives the reason and the remedy."""


def bytes_per_image(resize: CachedResize, images: Sequence[Path]) -> float:
    """Estimate the bytes that an image takes in a cache from a sample; 0 if none of the sample can be opened."""
    chosen = np.unique(np.linspace(0, len(images) - 1, min(SAMPLE, len(images))).astype(int))
    taken = []
    for index in chosen:
        with suppress(Exception), Image.open(images[index]) as image:  # reads the header only
            width, height = resize.size(image.size)
            taken.append(-(-(3 * width * height + 64) // PAGE) * PAGE * OVERHEAD)
    return float(np.mean(taken)) if taken else 0.0


def make_room(root: Path, folder: Path, more: float) -> list[CacheInfo]:
    """Make room for a cache to grow by `more` bytes, removing the least recently used others; return those removed.

    Caches in use are never removed, and keep the room that they are expected to take. Nothing is removed if that
    would not be enough.

    Raises:
        CacheTooLarge: the cache limit or the disk does not allow it.
    """
    others = [info for info in list_caches(root) if info.path != folder]
    removable = _idle(others)
    pending = _pending(others, removable)
    over = sum(info.bytes for info in others) + pending + disk_size(folder) + more - settings.current().cache_limit
    short = more + pending + _reserved(root) - _free(root) if more else 0.0
    chosen: list[CacheInfo] = []
    while max(over, short) > sum(info.bytes for info in chosen):
        if not removable:
            raise CacheTooLarge(_explain(disk_size(folder) + more, over, short, pending, root))
        chosen.append(removable.pop())
    return [info for info in chosen if remove_idle(info.path)]


def max_size(root: Path, folder: Path) -> int:
    """Return the bytes that a cache may grow to within the cache limit and the free disk space."""
    others = [info for info in list_caches(root) if info.path != folder]
    within = settings.current().cache_limit - sum(info.bytes for info in others)
    on_disk = disk_size(folder) + _free(root) - _reserved(root)
    return int(min(within, on_disk) - _pending(others, _idle(others)))


def _idle(caches: Sequence[CacheInfo]) -> list[CacheInfo]:
    """Return the caches that no run uses, the last used first."""
    idle = []
    for info in caches:
        with suppress(Locked, OSError):
            FileLock(info.path / USE_LOCK, shared=False).close()
            idle.append(info)
    return idle


def _pending(caches: Sequence[CacheInfo], idle: Sequence[CacheInfo]) -> int:
    """Return the bytes that caches in use will still grow by, so that runs that fill theirs concurrently all fit."""
    return sum(max(0, expected_size(info.path) - info.bytes) for info in caches if info not in idle)


def _explain(size: float, over: float, short: float, pending: int, root: Path) -> str:
    needed = f"they would take about {bytes_text(size)}"
    if short > over:
        reserved = f"{bytes_text(_reserved(root))} stay reserved"
        awaited = f" and caches in use will take {bytes_text(pending)}" if pending else ""
        return (
            f"{needed}, and the disk of {root / IMAGES} has {bytes_text(_free(root))} free, of which {reserved}"
            f"{awaited}; free some space, or choose another disk with `cache`"
        )
    limit = bytes_text(settings.current().cache_limit)
    return f"{needed}, which, with the caches in use, exceeds the `cache_limit` of {limit}"


def _reserved(root: Path) -> float:
    return float(min(RESERVED_BYTES, RESERVED_FRACTION * shutil.disk_usage(_existing(root)).total))


def _free(root: Path) -> int:
    return shutil.disk_usage(_existing(root)).free


def _existing(folder: Path) -> Path:
    """Return a folder, or the nearest existing one above it."""
    folder = folder.absolute()
    return next(path for path in (folder, *folder.parents) if path.exists())
