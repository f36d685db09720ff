"""How far a benchmark is: a bar over its combinations, and a line for each that fails."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType

from fgvc_cli.benchmarking.results import Row
from fgvc_cli.display import console
from fgvc_cli.display.bench_figures import failures, speed
from fgvc_cli.display.progress import Progress


class BenchView:
    """Shows a benchmark as it goes; see `fgvc_cli.benchmarking.run.Watcher` for when each method is called.

    It is a context: the bar is gone when that ends.
    """

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._bar: Progress | None = None

    def __enter__(self) -> BenchView:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def planned(self, names: Sequence[str]) -> None:
        """Say how much there is to do, and put up the bar."""
        if len(names) > 1:
            console.note(f"{len(names)} combinations; Ctrl-C shows and keeps what is measured until then")
        self._bar = self._stack.enter_context(console.progress("bench", len(names) or None, "combinations"))

    def started(self, name: str) -> None:
        """Name what is measured now."""
        if self._bar is not None:
            self._bar.advance(0, name)

    def finished(self, row: Row) -> None:
        """Move the bar; say at once what failed, for a person may want to stop and mend it."""
        if self._bar is not None:
            rate = f"{speed(row.update)} images/s" if row.update else "failed"
            self._bar.advance(1, f"{row.name}: {rate}")
        for line in failures([row]):
            console.note(line)
