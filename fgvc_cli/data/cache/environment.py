"""LMDB environments, each opened once per process, on first use."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lmdb

DATA = "data.mdb"
"""File in which LMDB keeps the images of a cache."""

MIN_MAP_SIZE, INITIAL_MAP_SIZE = 1 << 20, 1 << 30
"""Bytes of address space that a map starts with; the file grows only with its content."""

MAX_READERS = 4000
"""Maximum number of concurrent read transactions over all processes; each process has at most one."""


class CacheUnusable(Exception):  # noqa: N818, the caller decides whether this is an error
    """A cache cannot be used; the message gives the reason."""


class CacheDamaged(CacheUnusable):
    """The file of a cache is not an LMDB file, is of another version, or is truncated."""


@dataclass
class OpenEnvironment:
    """An environment that this process has open.

    Attributes:
        env: the LMDB environment.
        file: device and inode of its data file.
        lock: held while a transaction is open or the map is resized, which exclude each other.
    """

    env: lmdb.Environment
    file: tuple[int, int]
    lock: Any = field(default_factory=threading.RLock)


_open_environments: dict[tuple[int, Path], OpenEnvironment] = {}
"""Keyed by process id too: a forked process inherits the entries of its parent and must not use them."""


def create(folder: Path) -> None:
    """Create the environment of a cache, or verify the existing one.

    Raises:
        CacheDamaged: the existing file cannot be used.
        CacheUnusable: the folder cannot be written, or LMDB's locks do not work there.
    """
    _open(folder, max_size=0, create=True)
    close(folder)


def open_environment(folder: Path, max_size: int) -> OpenEnvironment:
    """Return the environment of a cache, opened by this process.

    Args:
        folder: of the cache.
        max_size: bytes that its file may grow to.

    Raises:
        CacheUnusable: it was removed, or is damaged.
    """
    found = _open_environments.get((os.getpid(), folder))
    if found is None:
        return _open(folder, max_size, create=False)
    if _file_id(folder) != found.file:
        close(folder)
        raise CacheUnusable("it was removed")
    return found


def close(folder: Path) -> None:
    """Close the environment of a cache if this process has it open."""
    found = _open_environments.get((os.getpid(), folder))
    if found is not None:
        with found.lock:
            del _open_environments[os.getpid(), folder]
            found.env.close()


def count_images(folder: Path) -> int:
    """Return the number of images in a cache; 0 if it cannot be read."""
    found = _open_environments.get((os.getpid(), folder))
    try:
        if found is not None:
            return int(found.env.stat()["entries"])
        if _file_id(folder) is None:
            return 0
        with lmdb.open(os.fspath(folder), readonly=True, lock=False, create=False) as environment:
            return int(environment.stat()["entries"])
    except (lmdb.Error, OSError):
        return 0


def grow(found: OpenEnvironment, max_size: int) -> bool:
    """Double the map of an environment, up to `max_size` bytes; return False if it has that size already."""
    size = found.env.info()["map_size"]
    if size >= max_size:
        return False
    with found.lock:
        found.env.set_mapsize(min(2 * size, max_size))
    return True


def adopt_map_size(found: OpenEnvironment) -> None:
    """Resize the map to the size that another process gave it."""
    with found.lock:
        found.env.set_mapsize(0)


def _open(folder: Path, max_size: int, create: bool) -> OpenEnvironment:
    if not create and _file_id(folder) is None:
        raise CacheUnusable("it was removed")
    data = folder / DATA
    try:
        size = max(MIN_MAP_SIZE, data.stat().st_size if data.exists() else 0, min(INITIAL_MAP_SIZE, max_size))
        environment = lmdb.open(os.fspath(folder), map_size=size, create=False, metasync=False, max_readers=MAX_READERS)
    except (lmdb.InvalidError, lmdb.VersionMismatchError, lmdb.CorruptedError) as error:
        raise CacheDamaged(f"its file is damaged ({error})") from error
    except (lmdb.Error, OSError) as error:
        raise CacheUnusable(str(error)) from error
    file = _file_id(folder)
    if file is None:
        environment.close()
        raise CacheUnusable("it was removed")
    found = _open_environments[os.getpid(), folder] = OpenEnvironment(environment, file)
    if data.stat().st_size < (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]:
        close(folder)
        raise CacheDamaged("its file is truncated")
    environment.reader_check()  # clear the slots of killed processes
    return found


def _file_id(folder: Path) -> tuple[int, int] | None:
    """Return device and inode of a cache's data file; None if it does not exist."""
    try:
        found = (folder / DATA).stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
