"""File locks that end with the process that holds them."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows, where a folder with open files cannot be renamed: that is protection enough
    fcntl = None

POLL_SECONDS = 0.002
BUSY = (errno.EWOULDBLOCK, errno.EACCES, errno.EAGAIN)


class FileLock:
    """A lock that is held until `close`, or until this process and all that it forked have ended.

    `close` lets go of it for forked processes too.

    Args:
        file: what is locked; made if it is not there.
        shared: whether others may hold it too.
        patience: seconds to wait for those who are in the way.

    Raises:
        Locked: somebody else holds it.
        OSError: the file cannot be opened, or its file system has no locks.
    """

    def __init__(self, file: Path, shared: bool, patience: float = 0.0) -> None:
        self._handle = os.open(file, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
        until = time.monotonic() + patience
        try:
            while not self._taken(shared):
                if time.monotonic() >= until:
                    raise Locked(file)
                time.sleep(POLL_SECONDS)
        except BaseException:
            self.close()
            raise

    def _taken(self, shared: bool) -> bool:
        if fcntl is None:
            return True
        try:
            fcntl.flock(self._handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in BUSY:
                return False
            raise
        return True

    def is_of(self, file: Path) -> bool:
        """Say whether the file that is locked is still the one of this name."""
        try:
            return os.path.samestat(os.fstat(self._handle), file.stat())
        except OSError:
            return False

    def close(self) -> None:
        """Let go of it."""
        if self._handle >= 0:
            if fcntl is not None:
                with suppress(OSError):  # a file system without locks
                    fcntl.flock(self._handle, fcntl.LOCK_UN)
            os.close(self._handle)
            self._handle = -1


class Locked(Exception):  # noqa: N818, somebody else's turn is no error
    """Somebody else holds a lock."""


@contextmanager
def locked(file: Path, patience: float) -> Iterator[None]:
    """Hold a lock alone for a while; see `FileLock` for what it raises."""
    lock = FileLock(file, shared=False, patience=patience)
    try:
        yield
    finally:
        lock.close()
