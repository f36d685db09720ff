"""Progress of long-running work. The library reports it; nothing is shown until a caller sets `display`.

The command line sets it to progress bars. Notes and warnings go through `logging` (logger `fgvc_cli`), so a Python user
sees warnings on standard error and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol


class Progress(Protocol):
    """Progress of one piece of work."""

    def advance(self, n: int = 1, text: str = "") -> None:
        """Count `n` more units as done; `text` (a loss, a file name) is shown until the next call."""


class Silent:
    """Progress that is not shown."""

    def advance(self, n: int = 1, text: str = "") -> None:
        """Show nothing."""


Display = Callable[[str, "int | None", str], AbstractContextManager[Progress]]
"""Shows progress; arguments as those of `progress`."""

display: Display | None = None
"""Display in use; None shows nothing."""


def progress(description: str, total: int | None, unit: str = "images") -> AbstractContextManager[Progress]:
    """Report the progress of a piece of work.

        with progress("test", len(images)) as bar:
            for batch in batches:
                bar.advance(len(batch), f"loss {loss:.3f}")

    Args:
        description: one or two words.
        total: number of units; None if unknown.
        unit: what is counted, in the plural.
    """
    return nullcontext(Silent()) if display is None else display(description, total, unit)
