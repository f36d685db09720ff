"""How far a piece of work is: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import Task, TaskID

SILENT_SECONDS = 10.0
"""Work shorter than this gets no plain line at all."""

LINE_SECONDS = 20.0
"""Time between two plain lines."""

SLOW = 0.2
"""Units a second below which the seconds of one are shown instead."""


class Progress(Protocol):
    """What the work reports to."""

    def advance(self, n: int = 1, text: str = "") -> None:
        """Count `n` more units as done; `text` (a loss, a file name) is shown beside them until the next one."""


class View(Protocol):
    """Where notes and progress go; the module `fgvc_cli.display.console` is one."""

    def note(self, text: str) -> None:
        """Take a line that a person should know."""

    def progress(self, description: str, total: int | None, unit: str = ...) -> AbstractContextManager[Progress]:
        """Show how far a piece of work is."""


@contextmanager
def progress_display(
    description: str, total: int | None, unit: str, *, quiet: bool, terminal: bool
) -> Iterator[Progress]:
    """Give the display that fits where standard error goes; see `fgvc_cli.display.console.progress`."""
    if quiet:
        yield _Silence()
    elif not terminal:
        yield _PlainLines(description, total, unit)
    else:
        with _bar(description, total, unit) as bar:
            yield bar


class _Silence:
    def advance(self, n: int = 1, text: str = "") -> None:
        """Count nothing."""


class _PlainLines:
    """A line on standard error after `SILENT_SECONDS`, and then one every `LINE_SECONDS`."""

    def __init__(self, description: str, total: int | None, unit: str) -> None:
        self.description, self.total, self.unit = description, total, unit
        self.done = 0
        self.started = time.monotonic()
        self.due = self.started + SILENT_SECONDS

    def advance(self, n: int = 1, text: str = "") -> None:
        self.done += n
        now = time.monotonic()
        if now < self.due:
            return
        self.due = now + LINE_SECONDS
        rate = self.done / max(now - self.started, 1e-9)
        of_total = f"{self.done}" if self.total is None else f"{self.done} of {self.total}"
        parts = [f"{self.description}: {of_total} {self.unit}"]
        if rate > 0:
            parts.append(pace_text(rate, self.unit))
        if self.total is not None and rate > 0:
            parts.append(f"{duration_text((self.total - self.done) / rate)} left")
        if text:
            parts.append(text)
        sys.stderr.write(", ".join(parts) + "\n")
        sys.stderr.flush()


class _Bar:
    """One bar of the rich display."""

    def __init__(self, display: RichProgress, task: TaskID) -> None:
        self.display, self.task = display, task

    def advance(self, n: int = 1, text: str = "") -> None:
        self.display.update(self.task, advance=n, text=text)


_display: RichProgress | None = None


@contextmanager
def _bar(description: str, total: int | None, unit: str) -> Iterator[_Bar]:
    """Add a bar to the display that is up, or put one up; only one can draw on a terminal at a time."""
    global _display
    outermost = _display is None
    if _display is None:
        _display = _new_display()
        _display.start()
    display = _display
    task = display.add_task(description, total=total, unit=unit, text="")
    try:
        yield _Bar(display, task)
    finally:
        if outermost:
            _display = None
            display.stop()
        else:
            display.remove_task(task)


def _new_display() -> RichProgress:
    from rich.progress import BarColumn, Progress, ProgressColumn
    from rich.table import Column
    from rich.text import Text

    from fgvc_cli.display.console import err

    class Description(ProgressColumn):
        """What is being done."""

        def render(self, task: Task) -> Text:
            return Text(task.description)

    class Count(ProgressColumn):
        """Units done, of how many."""

        def render(self, task: Task) -> Text:
            return Text(f"{task.completed:.0f}" if task.total is None else f"{task.completed:.0f}/{task.total:.0f}")

    class Rate(ProgressColumn):
        """Units a second, and the time that is left."""

        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed or 0.0
            if speed < SLOW:  # the period below holds too few units: the mean since the start says more
                speed = task.completed / (task.elapsed or 1)
            if not speed:
                return Text("")
            text = pace_text(speed, task.fields["unit"])
            if task.remaining:
                text += f"  {duration_text(task.remaining / speed)} left"
            return Text(text, style="cyan")

    class Latest(ProgressColumn):
        """What is told beside the units; of all columns the one that is cut where the terminal is narrow."""

        def render(self, task: Task) -> Text:
            return Text(task.fields["text"], style="dim", no_wrap=True, overflow="ellipsis")

    def whole() -> Column:
        return Column(no_wrap=True)

    return Progress(
        Description(table_column=whole()),
        BarColumn(bar_width=min(28, err().width // 5), table_column=whole()),
        Count(table_column=whole()),
        Rate(table_column=whole()),
        Latest(),
        console=err(),
        transient=True,  # what is left to read afterwards is the command's result, not its bars
        speed_estimate_period=15.0,
    )


def pace_text(rate: float, unit: str) -> str:
    """Write a rate of units a second, or where one takes long how long it does: `8.1 images/s`, `25 s each`."""
    return f"{rate_text(rate)} {unit}/s" if rate >= SLOW else f"{1 / rate:.0f} s each"


def rate_text(rate: float) -> str:
    """Write a rate with three figures: `0.42`, `8.1`, `1250`."""
    return f"{rate:.2f}" if rate < 1 else f"{rate:.1f}" if rate < 10 else f"{rate:.0f}"


def duration_text(seconds: float) -> str:
    """Write a duration as a clock does: `0:07`, `12:30`, `3:05:00`."""
    minutes, rest = divmod(max(round(seconds), 0), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
