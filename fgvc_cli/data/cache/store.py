"""Read and write decoded images."""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import lmdb
import numpy as np
from PIL import Image

from fgvc_cli.data.cache.environment import Opened, Unusable, close, follow, grow, opened
from fgvc_cli.data.cache.locks import Locked, locked
from fgvc_cli.data.cache.resize import CachedResize

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage


WRITE = "write.lock"
PATIENCE = 0.25
"""Seconds to wait for another process that writes. One that was stopped in the middle of it, or a slow disk, then costs
others no more: what cannot be written now is decoded, and written, another time."""

SLOW = 0.05
"""Seconds. After writing for longer than this, a process writes nothing for as long again: on a slow or busy disk the
first epoch takes at most twice what decoding takes, and what was left out is written in the next."""

Find = Callable[[bytes], "memoryview | None"]


class ImageStore:
    """A store of images by key, for any number of processes at once; it survives pickling and forking.

    Nothing here raises: a store that fails is given up by this process, which `trouble` says.

    Attributes:
        folder: where it is.
        most: bytes that it may take on the disk.
        trouble: why it is no longer read; empty if it is.
        full: why nothing is written any more; empty if it is.
        told: whether a person knows of either.
    """

    def __init__(self, folder: Path, most: int) -> None:
        self.folder, self.most = folder, most
        self.trouble = self.full = ""
        self.told = False
        self._patience, self._rest_until = PATIENCE, 0.0

    @contextmanager
    def reading(self) -> Iterator[Find]:
        """Give a function that finds an image's bytes by its key; what it returns is only valid within the block."""
        found = self._opened()
        if found is None:
            yield _nothing
            return
        with found.lock:
            transaction = self._begun(found)
            if transaction is None:
                yield _nothing
                return
            try:
                yield cast(Find, transaction.get)  # buffers=True: memory, not bytes
            finally:
                transaction.abort()

    def write(self, images: Sequence[tuple[bytes, bytes]]) -> None:
        """Add images, each as (key, bytes), all or none; those that are there already stay as they are."""
        if self.full or not images or time.monotonic() < self._rest_until:
            return
        found = self._opened()
        if found is None:
            return
        try:
            with locked(self.folder / WRITE, self._patience), found.lock:
                started = time.monotonic()
                self._write(found, images)
            self._patience, now = PATIENCE, time.monotonic()
            self._rest_until = 2 * now - started if now - started > SLOW else 0.0
        except Locked:
            self._patience = 0.0  # until it works again: once was enough waiting
        except (lmdb.Error, OSError) as error:
            self.full = f"it cannot be written ({self._cause(error, images)})"

    def _cause(self, error: Exception, images: Sequence[tuple[bytes, bytes]]) -> str:
        """Say why writing failed; what a full disk took half of, LMDB calls an input/output error."""
        with suppress(OSError):
            if shutil.disk_usage(self.folder).free < sum(len(value) for _, value in images):
                return "the disk is full"
        return str(error)

    def count(self, keys: Iterable[bytes]) -> int:
        """Return how many of some keys have an image."""
        with self.reading() as find:
            return sum(find(key) is not None for key in keys)

    def close(self) -> None:
        """Let go of the files, in this process; they are opened again when they are needed."""
        close(self.folder)

    def _opened(self) -> Opened | None:
        if self.trouble:
            return None
        try:
            return opened(self.folder, self.most)
        except Unusable as error:
            self.trouble = str(error)
        return None

    def _begun(self, found: Opened) -> lmdb.Transaction | None:
        try:
            try:
                return found.environment.begin(buffers=True)
            except lmdb.MapResizedError:
                follow(found)
                return found.environment.begin(buffers=True)
        except lmdb.Error as error:
            self.trouble = f"it cannot be read ({error})"
            return None

    def _write(self, found: Opened, images: Sequence[tuple[bytes, bytes]]) -> None:
        while True:
            try:
                with found.environment.begin(write=True) as transaction:
                    for key, value in images:
                        transaction.put(key, value, overwrite=False)
                return
            except lmdb.MapResizedError:
                follow(found)
            except lmdb.MapFullError:
                if not grow(found, self.most):
                    self.full = "it is as large as it may be"
                    return


def _nothing(_: bytes) -> None:
    return None


KEY_BYTES = 16
NO_KEY = bytes(KEY_BYTES)
SHAPE = struct.Struct("<II")
"""What stands before the pixels, which are uint8 H,W,3: height and width."""

MOST_WAITING = 16 * 2**20
"""Bytes of images that wait for the end of the batch to be written."""


def image_key(path: str | Path) -> bytes:
    """Return what tells an image file from every other, and from itself after a change: a digest of 16 bytes.

    It is made of the absolute path, the size and both times of change: a program that copies or unpacks sets the one
    of the content as it likes, and two files that change names keep it. Zeros for a file that is not there.
    """
    try:
        found = os.stat(path)  # noqa: PTH116, a hundred thousand of them
    except OSError:
        return NO_KEY
    text = f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns} ".encode()
    return hashlib.blake2b(text + os.fsencode(os.path.abspath(path)), digest_size=KEY_BYTES).digest()  # noqa: PTH100


def image_keys(paths: Sequence[str | Path]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return the keys of image files, uint8 N,16."""
    return np.frombuffer(b"".join(map(image_key, paths)), np.uint8).reshape(-1, KEY_BYTES)


class KeptImages:
    """The images of a split in a store: those that are there are read, and those decoded meanwhile are added.

    A batch is one transaction, so the work on it stands in `with kept.batch():`.

    Args:
        store: holds them.
        rendition: that they have in it.
        images: files.
    """

    def __init__(self, store: ImageStore, rendition: CachedResize, images: Sequence[str | Path]) -> None:
        self.store, self.rendition, self.keys = store, rendition, image_keys(images)
        self._find: Find | None = None
        self._waiting: list[tuple[bytes, bytes]] = []
        self._transaction = ExitStack()

    def __len__(self) -> int:
        return len(self.keys)

    def __getstate__(self) -> dict[str, Any]:
        return {"store": self.store, "rendition": self.rendition, "keys": self.keys}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _find=None, _waiting=[], _transaction=ExitStack())

    @property
    def trouble(self) -> str:
        """What is wrong with the store, as this process sees it; empty if nothing is."""
        store = self.store
        return store.trouble or store.full

    def count(self) -> int:
        """Return how many of the images are in the store."""
        return self.store.count(key.tobytes() for key in self.keys)

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Read from the store within the block, and at its end write what was decoded."""
        self._begin()
        try:
            yield
        finally:
            self._finish()

    def get(self, index: int) -> PILImage | None:
        """Return an image of the batch, or None if it is not in the store."""
        found = None if self._find is None else self._find(self.keys[index].tobytes())
        if found is None or len(found) < SHAPE.size:
            return None
        height, width = SHAPE.unpack_from(found)
        if len(found) != SHAPE.size + 3 * height * width:
            return None
        # copies the pixels, as RGB in Pillow has four bytes each: the image outlives the transaction
        pixels = np.frombuffer(found, np.uint8, offset=SHAPE.size)
        return Image.frombuffer("RGB", (width, height), pixels, "raw", "RGB", 0, 1)

    def add(self, index: int, path: Path, image: PILImage) -> None:
        """Take an image that was just made from its file, for the store."""
        if self._find is None or self.store.full or self.store.trouble:
            return
        key = self.keys[index].tobytes()
        if key == NO_KEY or key != image_key(path):  # replaced since the run began: these are not the pixels of the key
            return
        self._waiting.append((key, SHAPE.pack(image.height, image.width) + image.tobytes()))
        if sum(len(value) for _, value in self._waiting) >= MOST_WAITING:
            self._finish()
            self._begin()

    def _begin(self) -> None:
        self._find = self._transaction.enter_context(self.store.reading())

    def _finish(self) -> None:
        self._find = None
        self._transaction.close()  # before writing, which may resize the map
        waiting, self._waiting = self._waiting, []
        self.store.write(waiting)
