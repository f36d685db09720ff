"""File locks that the operating system releases when the process that holds them ends."""

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
except ImportError:  # Windows, which refuses to rename a folder with open files: protection enough
    fcntl = None

POLL_SECONDS = 0.002
BUSY = (errno.EWOULDBLOCK, errno.EACCES, errno.EAGAIN)


class Locked(Exception):  # noqa: N818, often expected
    """Another process holds the lock."""


class FileLock:
    """A lock held until `close`, or until this process and all that it forked have ended.

    `close` releases it for forked processes too.

    Args:
        file: to lock; created if missing.
        shared: whether others may hold a shared lock at the same time.
        patience: seconds to wait for the lock.

    Raises:
        Locked: another process holds it.
        OSError: the file cannot be opened, or its file system does not support locks.
    """

    def __init__(self, file: Path, shared: bool, patience: float = 0.0) -> None:
        self._handle = os.open(file, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
        deadline = time.monotonic() + patience
        try:
            while not self._try(shared):
                if time.monotonic() >= deadline:
                    raise Locked(file)
                time.sleep(POLL_SECONDS)
        except BaseException:
            self.close()
            raise

    def _try(self, shared: bool) -> bool:
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
        """Return whether the locked file still has this name: it may have been deleted and created again."""
        try:
            return os.path.samestat(os.fstat(self._handle), file.stat())
        except OSError:
            return False

    def close(self) -> None:
        """Release the lock."""
        if self._handle >= 0:
            if fcntl is not None:
                with suppress(OSError):  # a file system without locks
                    fcntl.flock(self._handle, fcntl.LOCK_UN)
            os.close(self._handle)
            self._handle = -1


@contextmanager
def locked(file: Path, patience: float) -> Iterator[None]:
    """Hold an exclusive lock within the block; raises as `FileLock` does."""
    lock = FileLock(file, shared=False, patience=patience)
    try:
        yield
    finally:
        lock.close()
