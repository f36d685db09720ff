"""Ctrl-C and SIGTERM, heard between two updates rather than in the middle of one."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from fgvc_cli.errors import FgvcError


class Interrupted(FgvcError):  # noqa: N818, an interruption is no error
    """Training was interrupted and its state saved."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + number


class Interrupt:
    """Remembers that a signal asked for an end.

    Attributes:
        number: the signal's number, or 0.
    """

    number = 0

    def __bool__(self) -> bool:
        return self.number != 0


@contextmanager
def heard() -> Iterator[Interrupt]:
    """Hear SIGINT and SIGTERM while the block runs; a second one stops at once.

    Outside the main thread signals cannot be heard, and the block runs without.
    """
    interrupt = Interrupt()

    def hear(number: int, _: FrameType | None) -> None:
        if interrupt:
            raise SystemExit(128 + number)
        interrupt.number = number

    try:
        before = {number: signal.signal(number, hear) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:
        yield interrupt
        return
    try:
        yield interrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
