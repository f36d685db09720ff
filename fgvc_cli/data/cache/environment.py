"""LMDB environments, each opened once per process, on first use."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lmdb

from fgvc_cli.data.cache.resize import DATA

LEAST_MAP, FIRST_MAP = 1 << 20, 1 << 30
"""Bytes of address space that a map begins with, at least and where there is room; the file is no longer for it."""

READERS = 4000
"""Transactions that may read at once, in all processes: one a process."""


class Unusable(Exception):  # noqa: N818, the caller says what it means
    """A store cannot be used; the message says why."""


class Damaged(Unusable):
    """The file of a store is no LMDB file, of another version, or cut short."""


@dataclass
class Opened:
    """An environment as this process has it open.

    Attributes:
        environment: of LMDB.
        file: device and inode of its data file.
        lock: held while a transaction is open or the map is resized, which exclude each other.
    """

    environment: lmdb.Environment
    file: tuple[int, int]
    lock: Any = field(default_factory=threading.RLock)


_opened: dict[tuple[int, Path], Opened] = {}
"""By process id, because a forked process finds those of its parent here and must leave them alone."""


def create(folder: Path) -> None:
    """Make the environment of a store, or check the one that is there.

    Raises:
        Damaged: there is a file, and it cannot be used.
        Unusable: the folder cannot be written, or LMDB's locks do not work there.
    """
    _open(folder, most=0, create=True)
    close(folder)


def opened(folder: Path, most: int) -> Opened:
    """Return the environment of a store, opened by this process.

    Args:
        folder: the store.
        most: bytes that its file may grow to.

    Raises:
        Unusable: it is not there any more, or damaged.
    """
    found = _opened.get((os.getpid(), folder))
    if found is None:
        return _open(folder, most, create=False)
    if _file(folder) != found.file:
        close(folder)
        raise Unusable("it was removed")
    return found


def close(folder: Path) -> None:
    """Close the environment of a store, if this process has it open."""
    found = _opened.get((os.getpid(), folder))
    if found is not None:
        with found.lock:
            del _opened[os.getpid(), folder]
            found.environment.close()


def count_images(folder: Path) -> int:
    """Return how many images a store holds; 0 if it cannot be read."""
    found = _opened.get((os.getpid(), folder))
    try:
        if found is not None:
            return int(found.environment.stat()["entries"])
        if _file(folder) is None:
            return 0
        with lmdb.open(os.fspath(folder), readonly=True, lock=False, create=False) as environment:  # its first page
            return int(environment.stat()["entries"])
    except (lmdb.Error, OSError):
        return 0


def grow(found: Opened, most: int) -> bool:
    """Make the map of an environment larger; return False if it has `most` bytes already."""
    size = found.environment.info()["map_size"]
    if size >= most:
        return False
    with found.lock:
        found.environment.set_mapsize(min(2 * size, most))
    return True


def follow(found: Opened) -> None:
    """Make the map as large as another process has made it."""
    with found.lock:
        found.environment.set_mapsize(0)


def _open(folder: Path, most: int, create: bool) -> Opened:
    if not create and _file(folder) is None:
        raise Unusable("it was removed")
    try:
        environment = _new_environment(folder, most)
    except (lmdb.InvalidError, lmdb.VersionMismatchError, lmdb.CorruptedError) as error:
        raise Damaged(f"its file is damaged ({error})") from error
    except (lmdb.Error, OSError) as error:
        raise Unusable(str(error)) from error
    file = _file(folder)
    if file is None:
        environment.close()
        raise Unusable("it was removed")
    found = _opened[os.getpid(), folder] = Opened(environment, file)
    pages = environment.info()["last_pgno"] + 1
    if (folder / DATA).stat().st_size < pages * environment.stat()["psize"]:
        close(folder)
        raise Damaged("its file is cut short")
    environment.reader_check()  # of processes that were killed
    return found


def _new_environment(folder: Path, most: int) -> lmdb.Environment:
    data = folder / DATA
    size = data.stat().st_size if data.exists() else 0
    room = max(LEAST_MAP, size, min(FIRST_MAP, most))
    return lmdb.open(os.fspath(folder), map_size=room, create=False, metasync=False, max_readers=READERS)


def _file(folder: Path) -> tuple[int, int] | None:
    """Return the device and inode of a store's data file; None if there is none."""
    try:
        found = (folder / DATA).stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
