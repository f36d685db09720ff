"""What a training of a study tells the program that runs the study."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Begun:
    """Training begins, or goes on.

    Attributes:
        epochs: that it has in all.
        done: epochs that were done before.
        notes: lines that a person should know.
    """

    epochs: int
    done: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Moved:
    """It has come so far.

    Attributes:
        share: of all its epochs, in [0, 1].
        text: what is going on, in a word or two.
    """

    share: float
    text: str = ""


@dataclass(frozen=True)
class Finished:
    """It has come to its end.

    Attributes:
        summary: what `summary.json` holds.
    """

    summary: dict[str, Any]


@dataclass(frozen=True)
class Failed:
    """It cannot be done.

    Attributes:
        reason: in one line.
    """

    reason: str

    @property
    def disk_is_full(self) -> bool:
        """Whether every other run would fail likewise, until a person makes room."""
        return "no space left" in self.reason.lower()


@dataclass(frozen=True)
class Stopped:
    """It was interrupted, and its state is saved."""


Event = Begun | Moved | Finished | Failed | Stopped
"""The last three are the last thing that a training tells."""
