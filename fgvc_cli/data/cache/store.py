"""Decode caches: LMDB environments, each opened once per process, and the images in them."""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import lmdb
import numpy as np
from PIL import Image

from fgvc_cli.data.images import CachedResize
from fgvc_cli.files import Locked, locked

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage


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
    close(folder)  # LMDB opens an environment once per process; whoever has it open opens it again on the next use
    _open(folder, max_size=0, create=True)
    close(folder)


def open_environment(folder: Path, max_size: int) -> OpenEnvironment:
    """Return the environment of a cache, opened by this process; its file may grow to `max_size` bytes.

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


WRITE_LOCK = "write.lock"
PATIENCE = 0.25
"""Seconds to wait for another process that writes. After that images are only decoded, and cached another time: a
stopped process or a slow disk must not delay the others."""

LONG_PATIENCE = 60.0
"""Seconds to wait for another process that writes, for values that take longer to compute."""

SLOW = 0.05
"""Seconds. After a write that took longer, a process pauses writing for the same time: on a slow or busy disk the first
epoch takes at most twice as long as decoding, and the images left out are cached in the next."""

Find = Callable[[bytes], "memoryview | None"]


class DecodeCache:
    """Decoded images by key, for any number of concurrent processes; can be pickled and survives forking.

    No method raises when the cache fails: this process stops using it and sets `read_error` or `write_error`.

    Attributes:
        folder: of the cache.
        max_size: bytes that it may take on disk.
        patient: whether writing waits for other processes and a slow disk, for values that take longer to compute.
        read_error: why it is no longer read; empty if it is.
        write_error: why it is no longer written; empty if it is.
        warned: whether the user was warned of either.
    """

    def __init__(self, folder: Path, max_size: int, patient: bool = False) -> None:
        self.folder, self.max_size, self.patient = folder, max_size, patient
        self.read_error = self.write_error = ""
        self.warned = False
        self._patience, self._pause_until = PATIENCE, 0.0

    @property
    def error(self) -> str:
        """Why the cache is not fully used by this process; empty if it is."""
        return self.read_error or self.write_error

    @contextmanager
    def reading(self) -> Iterator[Find]:
        """Yield a function that finds an image's bytes by key; its results are valid only within the block."""
        found = self._open()
        if found is None:
            yield _find_nothing
            return
        with found.lock:
            transaction = self._begin_read(found)
            if transaction is None:
                yield _find_nothing
                return
            try:
                yield cast(Find, transaction.get)  # buffers=True: memory, not bytes
            finally:
                transaction.abort()

    def write(self, images: Sequence[tuple[bytes, bytes]]) -> None:
        """Add images, each as (key, bytes), all or none; existing ones are not overwritten."""
        if self.write_error or not images or (not self.patient and time.monotonic() < self._pause_until):
            return
        found = self._open()
        if found is None:
            return
        try:
            patience = LONG_PATIENCE if self.patient else self._patience
            with locked(self.folder / WRITE_LOCK, patience), found.lock:
                started = time.monotonic()
                self._write(found, images)
            self._patience, now = PATIENCE, time.monotonic()
            self._pause_until = 2 * now - started if now - started > SLOW else 0.0
        except Locked:
            self._patience = 0.0  # do not wait again until a write succeeds
        except (lmdb.Error, OSError) as error:
            cause = str(error)
            with suppress(OSError):  # LMDB reports a disk that fills up during a write as an input/output error
                if shutil.disk_usage(self.folder).free < sum(len(value) for _, value in images):
                    cause = "the disk is full"
            self.write_error = f"it cannot be written ({cause})"

    def count(self, keys: Iterable[bytes]) -> int:
        """Return the number of keys that have an image."""
        with self.reading() as find:
            return sum(find(key) is not None for key in keys)

    def close(self) -> None:
        """Close the files in this process; they are opened again on the next use."""
        close(self.folder)

    def _open(self) -> OpenEnvironment | None:
        if self.read_error:
            return None
        try:
            return open_environment(self.folder, self.max_size)
        except CacheUnusable as error:
            self.read_error = str(error)
        return None

    def _begin_read(self, found: OpenEnvironment) -> lmdb.Transaction | None:
        try:
            try:
                return found.env.begin(buffers=True)
            except lmdb.MapResizedError:
                adopt_map_size(found)
                return found.env.begin(buffers=True)
        except lmdb.Error as error:
            self.read_error = f"it cannot be read ({error})"
            return None

    def _write(self, found: OpenEnvironment, images: Sequence[tuple[bytes, bytes]]) -> None:
        while True:
            try:
                with found.env.begin(write=True) as transaction:
                    for key, value in images:
                        transaction.put(key, value, overwrite=False)
                return
            except lmdb.MapResizedError:
                adopt_map_size(found)
            except lmdb.MapFullError:
                if not grow(found, self.max_size):
                    self.write_error = "it has reached its maximum size"
                    return


def _find_nothing(_: bytes) -> None:
    return None


KEY_BYTES = 16
NO_KEY = bytes(KEY_BYTES)
HEADER = struct.Struct("<III")
"""Header before the pixels, which are uint8 H,W,3: height, width and CRC-32 of the pixels."""

MAX_PENDING = 16 * 2**20
"""Bytes of images that wait to be written at the end of the batch."""


def image_key(path: str | Path) -> bytes:
    """Return a 16-byte digest that identifies an image file and its content; zeros if the file does not exist.

    It covers the absolute path, the size, and both modification times: programs that copy or unpack may set mtime
    freely, and renaming one file to another keeps it.
    """
    try:
        found = os.stat(path)  # noqa: PTH116, called for 100,000 files
    except OSError:
        return NO_KEY
    text = f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns} ".encode()
    return hashlib.blake2b(text + os.fsencode(os.path.abspath(path)), digest_size=KEY_BYTES).digest()  # noqa: PTH100


class CachedImages:
    """The images of a split in a decode cache: reads those it has, and adds newly decoded ones.

    A batch is one transaction: `with cached.batch(): ...`.

    Args:
        cache: holds the images.
        resize: that was applied to them.
        images: files of the split.

    Attributes:
        keys: uint8 N,16, see `image_key`.
    """

    def __init__(self, cache: DecodeCache, resize: CachedResize, images: Sequence[str | Path]) -> None:
        self.cache, self.resize = cache, resize
        self.keys = np.frombuffer(b"".join(map(image_key, images)), np.uint8).reshape(-1, KEY_BYTES)
        self._start()

    def _start(self) -> None:
        self._find: Find | None = None
        self._pending: list[tuple[bytes, bytes]] = []
        self._transaction = ExitStack()

    def __len__(self) -> int:
        return len(self.keys)

    def __getstate__(self) -> dict[str, Any]:
        return {"cache": self.cache, "resize": self.resize, "keys": self.keys}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()

    def count(self) -> int:
        """Return the number of images that are in the cache."""
        return self.cache.count(key.tobytes() for key in self.keys)

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Read from the cache within the block, and write the newly decoded images at its end."""
        self._begin()
        try:
            yield
        finally:
            self._finish()

    def get(self, index: int) -> PILImage | None:
        """Return an image of the batch, or None if it is not in the cache."""
        found = None if self._find is None else self._find(self.keys[index].tobytes())
        if found is None or len(found) < HEADER.size:
            return None
        height, width, checksum = HEADER.unpack_from(found)
        if len(found) != HEADER.size + 3 * height * width or zlib.crc32(found[HEADER.size :]) != checksum:
            return None  # damaged on the disk: decoded again
        # Copies the pixels (Pillow stores RGB in four bytes), so that the image outlives the transaction.
        pixels = np.frombuffer(found, np.uint8, offset=HEADER.size)
        return Image.frombuffer("RGB", (width, height), pixels, "raw", "RGB", 0, 1)

    def add(self, index: int, path: Path, image: PILImage) -> None:
        """Add an image that was just decoded from its file and resized."""
        if self._find is None or self.cache.error:
            return
        key = self.keys[index].tobytes()
        if key == NO_KEY or key != image_key(path):  # the file was replaced after the key was computed
            return
        pixels = image.tobytes()
        self._pending.append((key, HEADER.pack(image.height, image.width, zlib.crc32(pixels)) + pixels))
        if sum(len(value) for _, value in self._pending) >= MAX_PENDING:
            self._finish()
            self._begin()

    def _begin(self) -> None:
        self._find = self._transaction.enter_context(self.cache.reading())

    def _finish(self) -> None:
        self._find = None
        self._transaction.close()  # before writing, which may resize the map
        pending, self._pending = self._pending, []
        self.cache.write(pending)
