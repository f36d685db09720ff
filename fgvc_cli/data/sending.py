"""Batches on their way from a worker process: what fails there is reported, and never waited for."""

from __future__ import annotations

import errno
import pickle
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.reduction import ForkingPickler
from typing import Generic, TypeVar

from torch.utils.data import Dataset
from torch.utils.data._utils.pin_memory import pin_memory

from fgvc_cli.errors import FgvcError

Request = TypeVar("Request")
Value = TypeVar("Value")

FAILURES = (OSError, RuntimeError, FgvcError)
"""What torch and multiprocessing raise if shared memory, open files, threads or temporary folders run out."""


class Sent(Generic[Value]):
    """A value that is pickled before it enters the queue.

    The queue of a worker pickles in a thread of its own, and the reader waits without end for what could not be pickled
    there: tensors need shared memory, an open file and a socket in a temporary folder.

    Attributes:
        data: the pickled value; empty if it could not be computed.
        problem: what the worker ran out of, and what to do; the value is complete if there is data.
    """

    def __init__(self, data: bytes, problem: str = "") -> None:
        self.data, self.problem = data, problem

    @classmethod
    def of(cls, make: Callable[[], Value]) -> Sent[Value]:
        """Compute a value and pickle it: tensors in shared memory, or their bytes if that fails."""
        try:
            value = make()
        except FAILURES as error:
            return cls(b"", shortage(error))
        try:
            return cls(bytes(ForkingPickler.dumps(value)))
        except FAILURES as error:
            return cls(pickle.dumps(value), shortage(error))

    def pin_memory(self) -> Sent[Value] | Pinned[Value]:
        """Unpickle the value into page-locked memory; the DataLoader calls this in its thread."""
        try:
            return Pinned(pin_memory(self.value()), self.problem)
        except FAILURES as error:
            return Sent(b"", shortage(error))

    def value(self) -> Value:
        """Unpickle the value.

        Raises:
            OSError, RuntimeError: there is no data, or this process ran out of something.
        """
        if not self.data:
            raise RuntimeError(self.problem)
        value: Value = pickle.loads(self.data)
        return value


class Pinned(Generic[Value]):
    """A value that is unpickled already; attributes as in `Sent`."""

    def __init__(self, value: Value, problem: str) -> None:
        self._value, self.problem = value, problem

    def value(self) -> Value:
        """Return the value."""
        return self._value


class Sending(Dataset[Sent[Value]], Generic[Request, Value]):
    """A dataset whose items are sent as `Sent`."""

    def __init__(self, dataset: Dataset[Value]) -> None:
        self.dataset = dataset

    def __getitem__(self, request: Request) -> Sent[Value]:
        return Sent.of(lambda: self.dataset[request])


def shortage(error: BaseException) -> str:
    """Return in one line what an error says has run out, and what to do."""
    number, text = getattr(error, "errno", None), " ".join(str(error).split())
    if number in (errno.EMFILE, errno.ENFILE) or "Too many open files" in text or "ancdata" in text:
        return "too many open files; raise the limit (`ulimit -n 4096`)"
    if number == errno.ENOSPC or "shared memory" in text:
        return "shared memory (/dev/shm) is full; make it larger (Docker: `--shm-size=8g`)"
    if "temporary directory" in text:
        return "no folder for temporary files can be written; name one in the variable TMPDIR"
    return text or type(error).__name__


@contextmanager
def quiet_finalizers() -> Iterator[None]:
    """Print no traceback of what is deleted half-built within the block."""
    before = sys.unraisablehook
    sys.unraisablehook = lambda _: None
    try:
        yield
    finally:
        sys.unraisablehook = before
