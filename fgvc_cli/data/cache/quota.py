"""Keep the decode caches within the cache limit and the free disk space."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image

from fgvc_cli import settings
from fgvc_cli.data.cache.index import (
    IMAGES,
    USE_LOCK,
    CacheInfo,
    disk_size,
    expected_size,
    list_caches,
    remove_idle,
)
from fgvc_cli.data.cache.resize import CachedResize
from fgvc_cli.formatting import bytes_text
from fgvc_cli.locks import FileLock, Locked

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
    """Make room for a cache to grow, removing the least recently used others if necessary.

    Caches in use are never removed, and keep the room that they are expected to take. Nothing is removed if that
    would not be enough.

    Args:
        root: the cache directory.
        folder: of the cache, which need not exist.
        more: bytes that it will grow by.

    Returns:
        The caches that were removed.

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
