"""Progress of long-running work: the library reports it, and whoever calls the library may show it.

Nothing is shown unless a display is installed with `shown_by`; the command line installs bars. Notes and warnings go
through `logging` (logger `fgvc_cli`), so a Python user sees warnings on standard error and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol


class Progress(Protocol):
    """What long-running work reports to."""

    def advance(self, n: int = 1, text: str = "") -> None:
        """Count `n` more units as done; `text` (a loss, a file name) is shown with them until the next call."""


Display = Callable[[str, "int | None", str], AbstractContextManager[Progress]]
"""Shows progress: called with a description, the number of units (None if unknown) and the unit, in the plural."""


class Silent:
    """Progress that is not shown."""

    def advance(self, n: int = 1, text: str = "") -> None:
        """Show nothing."""


def _silent(description: str, total: int | None, unit: str) -> AbstractContextManager[Progress]:  # noqa: ARG001
    return nullcontext(Silent())


_display: Display = _silent


def progress(description: str, total: int | None, unit: str = "images") -> AbstractContextManager[Progress]:
    """Report the progress of a piece of work.

        with progress("test", len(images)) as bar:
            for batch in batches:
                bar.advance(len(batch), f"loss {loss:.3f}")

    Args:
        description: what is being done, in a word or two.
        total: number of units; None if unknown.
        unit: what is counted, in the plural.
    """
    return _display(description, total, unit)


@contextmanager
def shown_by(display: Display) -> Iterator[None]:
    """Show progress with a display while the block runs."""
    global _display
    before, _display = _display, display
    try:
        yield
    finally:
        _display = before
