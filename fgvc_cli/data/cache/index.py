"""The caches of decoded images on disk: list, remove, and stay within the quota."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fgvc_cli import files, settings
from fgvc_cli.data.cache.locks import FileLock, Locked
from fgvc_cli.data.cache.resize import CachedResize
from fgvc_cli.errors import FgvcError
from fgvc_cli.formatting import bytes_text

IMAGES, ABOUT, USE = "images", "about.json", "use.lock"
"""Names: the folder of all stores below the cache, and files in a store."""

REMOVED = ".removed-"
"""How the name of a store begins that is being removed."""


@dataclass(frozen=True)
class StoreInfo:
    """A store of decoded images.

    Attributes:
        path: its folder.
        data: the dataset, and the folder it is in.
        rendition: what is stored, in words.
        images: how many it holds; 0 if it cannot be read.
        bytes: on disk.
        used: when it was last used, Unix time.
    """

    path: Path
    data: str
    rendition: str
    images: int
    bytes: int
    used: float


def stores(cache: Path) -> list[StoreInfo]:
    """List the stores in a cache folder, the last used first; none where there is no such folder."""
    from fgvc_cli.data.cache.environment import count_images  # LMDB only where there is something to look at

    found = []
    for path in _folders(cache):
        about = _about(path)
        data, rendition = (str(about.get(name, "unknown")) for name in ("data", "rendition"))
        with suppress(FileNotFoundError):  # removed this moment
            found.append(StoreInfo(path, data, rendition, count_images(path), size(path), used(path)))
    return sorted(found, key=lambda store: -store.used)


def clear(cache: Path, wanted: Sequence[StoreInfo]) -> int:
    """Remove stores, also ones in use: a run whose store goes decodes its images again.

    Returns:
        Bytes freed. Of a store in use, the disk has them back when the run notices, within a batch.

    Raises:
        FgvcError: a store cannot be removed.
    """
    sweep(cache)
    return sum(remove(store.path) for store in wanted)


def limit() -> int:
    """Return how many bytes all stores together may take (`--cache-limit`); 0: there are to be none."""
    return settings.current().cache_limit


def remove(store: Path) -> int:
    """Remove a store and return the bytes freed; nobody ever sees half of it.

    Raises:
        FgvcError: it cannot be removed.
    """
    freed = size(store)
    numbers = itertools.count()
    aside = store.with_name(f"{REMOVED}{store.name}-{os.getpid()}")
    while aside.exists():
        aside = aside.with_name(f"{REMOVED}{store.name}-{os.getpid()}-{next(numbers)}")
    try:
        store.rename(aside)
        shutil.rmtree(aside)
    except FileNotFoundError:  # another process was quicker
        return 0
    except OSError as error:
        raise FgvcError(f"{store} cannot be removed: {error.strerror or error}.") from error
    return freed


def sweep(cache: Path) -> None:
    """Remove what is left of stores whose removal was cut short."""
    with suppress(OSError):
        for left in (cache / IMAGES).glob(f"{REMOVED}*"):
            shutil.rmtree(left, ignore_errors=True)


def size(store: Path) -> int:
    """Return the bytes of a store on disk."""
    total = 0
    with suppress(OSError), os.scandir(store) as entries:
        for entry in entries:
            with suppress(OSError):
                total += entry.stat().st_size
    return total


def used(store: Path) -> float:
    """Return when a store was last used, Unix time."""
    about = store / ABOUT
    return (about if about.exists() else store).stat().st_mtime


def mark_used(store: Path) -> None:
    """Note that a store is used now."""
    with suppress(OSError):  # gone, or not ours to write
        os.utime(store / ABOUT, (time.time(),) * 2)


def expect(store: Path, whole: float) -> None:
    """Note how many bytes a store comes to when the run that uses it has filled it.

    Raises:
        FgvcError: it cannot be written.
    """
    files.write_json(store / ABOUT, {**_about(store), "expected": round(whole)})


def expected(store: Path) -> int:
    """Return how many bytes a store comes to, as the run that used it last expected; 0 if it says nothing."""
    whole = _about(store).get("expected")
    return whole if isinstance(whole, int) else 0


def _folders(cache: Path) -> list[Path]:
    try:
        entries = sorted((cache / IMAGES).iterdir())
    except OSError:
        return []
    return [path for path in entries if path.is_dir() and not path.name.startswith(".")]


def _about(store: Path) -> dict[str, Any]:
    """Return what a store says of itself."""
    try:
        about = json.loads((store / ABOUT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return about if isinstance(about, dict) else {}


SAMPLE = 32
"""Images whose sizes are looked at."""

LEFT_SHARE, LEFT_BYTES = 0.1, 5 * 10**9
"""What stays free on the disk: a share of it, or so many bytes where that is less."""

PAGE = 4096
OVERHEAD = 1.01
"""Beside the images LMDB keeps an index."""


class NoRoom(Exception):  # noqa: N818, the caller says what it means
    """A store does not fit; the message says why, and what to do."""


def bytes_per_image(rendition: CachedResize, images: Sequence[Path]) -> float:
    """Estimate how many bytes an image takes in a store, from the sizes of some; 0 if none of those can be opened."""
    chosen = np.unique(np.linspace(0, len(images) - 1, min(SAMPLE, len(images))).astype(int))
    taken = []
    for index in chosen:
        with suppress(Exception), Image.open(images[index]) as image:  # opens, does not decode
            width, height = rendition.size(image.size)
            taken.append(-(-(3 * width * height + 64) // PAGE) * PAGE * OVERHEAD)
    return float(np.mean(taken)) if taken else 0.0


def make_room(cache: Path, store: Path, more: float) -> list[StoreInfo]:
    """See that a store can grow, if need be by removing others, those first that were not used for longest.

    A store in use is never removed, and has the room that it is expected to take; none is removed if that would not be
    enough.

    Args:
        cache: the cache folder.
        store: the folder of the store, which need not exist.
        more: bytes that it will grow by.

    Returns:
        The stores that were removed.

    Raises:
        NoRoom: the limit or the disk does not allow it.
    """
    others = [other for other in stores(cache) if other.path != store]
    removable = _idle(others)
    pending = _pending(others, removable)
    over = sum(other.bytes for other in others) + pending + size(store) + more - limit()
    short = more + pending + _to_leave(cache) - _free(cache) if more else 0.0
    wanted = max(over, short)
    chosen: list[StoreInfo] = []
    while wanted > sum(other.bytes for other in chosen):
        if not removable:
            raise NoRoom(_why_not(size(store) + more, over, short, pending, cache))
        chosen.append(removable.pop())
    return [other for other in chosen if remove_idle(other.path)]


def most(cache: Path, store: Path) -> int:
    """Return the bytes that a store may grow to: what the limit and the disk leave to it."""
    others = [other for other in stores(cache) if other.path != store]
    pending = _pending(others, _idle(others))
    within = limit() - sum(other.bytes for other in others)
    return int(min(within, size(store) + _free(cache) - _to_leave(cache)) - pending)


def remove_idle(store: Path) -> bool:
    """Remove a store unless it is in use; say whether it is gone."""
    try:
        lock = FileLock(store / USE, shared=False)
    except Locked:
        return False
    except OSError:
        return not store.exists()
    try:
        remove(store)
    except FgvcError:
        return False
    finally:
        lock.close()
    return True


def _idle(others: Sequence[StoreInfo]) -> list[StoreInfo]:
    """Return the stores that no run uses, the last used first."""
    idle = []
    for other in others:
        with suppress(Locked, OSError):
            FileLock(other.path / USE, shared=False).close()
            idle.append(other)
    return idle


def _pending(others: Sequence[StoreInfo], idle: Sequence[StoreInfo]) -> int:
    """Return the bytes that stores in use will still grow by: as many runs fill theirs at once, all must fit."""
    return sum(max(0, expected(other.path) - other.bytes) for other in others if other not in idle)


def _why_not(whole: float, over: float, short: float, pending: int, cache: Path) -> str:
    takes = f"they would take about {bytes_text(whole)}"
    if short > over:
        awaited = f" and {bytes_text(pending)} awaited by stores in use" if pending else ""
        return (
            f"{takes}, and the disk of {cache / IMAGES} has {bytes_text(_free(cache))} free, of which "
            f"{bytes_text(_to_leave(cache))} are left alone{awaited}: free some, or choose another disk with --cache"
        )
    return f"{takes}, and what is not in use leaves no room for it within --cache-limit {bytes_text(limit())}"


def _to_leave(cache: Path) -> float:
    return float(min(LEFT_BYTES, LEFT_SHARE * shutil.disk_usage(_existing(cache)).total))


def _free(cache: Path) -> int:
    return shutil.disk_usage(_existing(cache)).free


def _existing(folder: Path) -> Path:
    """Return a folder, or the nearest one above it that exists."""
    folder = folder.absolute()
    return next(path for path in (folder, *folder.parents) if path.exists())
