"""Where text goes: results to standard output; notes, warnings and progress to standard error."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol, TextIO

if TYPE_CHECKING:
    from rich.console import Console
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
    """Where notes and progress go; the module `fgvc_cli.cli.console` is one."""

    def note(self, text: str) -> None:
        """Take a line that a person should know."""

    def progress(self, description: str, total: int | None, unit: str = ...) -> AbstractContextManager[Progress]:
        """Show how far a piece of work is."""


@contextmanager
def progress_display(
    description: str, total: int | None, unit: str, *, quiet: bool, terminal: bool
) -> Iterator[Progress]:
    """Give the display that fits where standard error goes; see `fgvc_cli.cli.console.progress`."""
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

    pass

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


WIDTH_WITHOUT_TERMINAL = 120
"""Columns of a table that goes to a file or a pipe, unless COLUMNS says otherwise."""

_quiet = False
_muted = False


def set_quiet(quiet: bool) -> None:
    """Say whether notes and progress are kept back; warnings and errors never are."""
    global _quiet
    _quiet = quiet


def set_muted(muted: bool) -> None:
    """Say whether all that goes to standard error is kept back: one of several processes speaks for all."""
    global _muted
    _muted = muted


def is_muted() -> bool:
    """Say whether all that goes to standard error is kept back."""
    return _muted


@contextmanager
def muted(muted: bool) -> Iterator[None]:
    """Keep everything back, or not, for a while."""
    before = _muted
    set_muted(muted)
    try:
        yield
    finally:
        set_muted(before)


@contextmanager
def quiet(quiet: bool) -> Iterator[None]:
    """Keep notes and progress back, or not, for a while."""
    before = _quiet
    set_quiet(quiet)
    try:
        yield
    finally:
        set_quiet(before)


def out() -> Console:
    """Return the rich console of standard output, for results."""
    return _console(stderr=False, terminal=_is_terminal(sys.stdout), columns=os.environ.get("COLUMNS"))


def err() -> Console:
    """Return the rich console of standard error, for everything that is not a result."""
    return _console(stderr=True, terminal=_is_terminal(sys.stderr), columns=os.environ.get("COLUMNS"))


def draws() -> bool:
    """Say whether standard error is a terminal on which bars may be drawn now."""
    return _is_terminal(sys.stderr) and not (_quiet or _muted)


def note(text: str) -> None:
    """Print a line to standard error that a person may like to know; nothing under `--quiet`."""
    if not _quiet:
        _write_line(text)


def warn(text: str) -> None:
    """Print a warning to standard error, quiet or not."""
    _write_line(text, label="warning: ", style="yellow")


def error(text: str) -> None:
    """Print the one line that says why a command failed to standard error."""
    _write_line(text, label="fgvc: error: ", style="bold red")


def print_json(document: Any) -> None:
    """Print one JSON document, and nothing else, to standard output.

    Dataclasses, paths, tuples, sets and scalars of numpy or torch become what JSON has; numbers that JSON lacks (not a
    number, infinity) become null.
    """
    utf8 = (sys.stdout.encoding or "").lower().replace("-", "").startswith("utf")
    sys.stdout.write(json.dumps(_plain(document), indent=2, ensure_ascii=not utf8, allow_nan=False) + "\n")


def progress(description: str, total: int | None, unit: str = "images") -> AbstractContextManager[Progress]:
    """Show how far a piece of work is, how fast it goes and how long still, on standard error.

        with progress("test", len(images)) as bar:
            for batch in batches:
                bar.advance(len(batch), f"loss {loss:.3f}")

    On a terminal that is a bar, elsewhere a plain line every 20 seconds (none for work under 10 seconds), and nothing
    under `--quiet`.

    Args:
        description: what is being done, in a word or two.
        total: units in all; None if that is unknown.
        unit: what is counted, in the plural.
    """
    return progress_display(description, total, unit, quiet=_quiet or _muted, terminal=_is_terminal(sys.stderr))


def _write_line(text: str, label: str = "", style: str = "") -> None:
    if _muted:
        return
    if not _is_terminal(sys.stderr):
        sys.stderr.write(f"{label}{text}\n")
        sys.stderr.flush()
        return
    from rich.text import Text

    # soft_wrap: a path or a command in the line must stay whole when it is copied
    err().print(Text.assemble((label, style), text), soft_wrap=True)


def _is_terminal(stream: TextIO) -> bool:
    """Tell whether a stream can show colours and move its cursor."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


@cache
def _console(stderr: bool, terminal: bool, columns: str | None) -> Console:
    """Return a console; `columns` is what COLUMNS, which rich reads, has to say."""
    from rich.console import Console

    fixed = None if terminal or columns is not None else WIDTH_WITHOUT_TERMINAL
    # Rich would force a terminal where FORCE_COLOR or TTY_COMPATIBLE is set; a pipe stays a pipe here.
    return Console(stderr=stderr, force_terminal=terminal, width=fixed, highlight=False, markup=False, emoji=False)


def _plain(value: Any) -> Any:
    """Turn a value into what JSON has."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(_plain(item) for item in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):  # a scalar or array of numpy, a tensor of torch
        return _plain(value.tolist())
    raise TypeError(f"{type(value).__name__} has no form in JSON")
