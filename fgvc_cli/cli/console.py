"""Output: results to standard output; notes, warnings and progress to standard error."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import os
import re
import sys
import time
import traceback
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import TYPE_CHECKING, Any, TextIO

from fgvc_cli import progress as library_progress
from fgvc_cli import settings
from fgvc_cli.cli.lazy import as_options
from fgvc_cli.formatting import SLOW, duration_text, pace_text, printable
from fgvc_cli.launch import is_reporting
from fgvc_cli.progress import Progress, Silent

if TYPE_CHECKING:
    from rich.console import Console, JustifyMethod
    from rich.progress import Progress as RichProgress
    from rich.progress import Task, TaskID
    from rich.table import Table


SILENT_SECONDS = 10.0
"""Work shorter than this prints no line."""

LINE_SECONDS = 20.0
"""Time between two lines."""


class _PlainLines:
    """Progress without a terminal: a line after `SILENT_SECONDS`, and then one every `LINE_SECONDS`."""

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
        parts = [f"{printable(self.description)}: {of_total} {self.unit}"]
        if rate > 0:
            parts.append(pace_text(rate, self.unit))
        if self.total is not None and rate > 0:
            parts.append(f"{duration_text((self.total - self.done) / rate)} left")
        if text:
            parts.append(text)
        sys.stderr.write(", ".join(parts) + "\n")
        sys.stderr.flush()


class _Bar:
    """Progress on a terminal: one bar of the rich display."""

    def __init__(self, display: RichProgress, task: TaskID) -> None:
        self.display, self.task = display, task

    def advance(self, n: int = 1, text: str = "") -> None:
        self.display.update(self.task, advance=n, text=text)


_display: RichProgress | None = None


@contextmanager
def _bar(description: str, total: int | None, unit: str) -> Iterator[_Bar]:
    """Add a bar to the current display or start one; a terminal has room for one display."""
    global _display
    outermost = _display is None
    if _display is None:
        _display = _new_display()
        _display.start()
    display = _display
    task = display.add_task(printable(description), total=total, unit=unit, text="")
    try:
        yield _Bar(display, task)
    finally:
        if outermost:
            _display = None
            display.stop()
        else:
            display.remove_task(task)


def _new_display() -> RichProgress:
    from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn
    from rich.table import Column
    from rich.text import Text

    class Rate(ProgressColumn):
        """Units done, units per second and remaining time."""

        def render(self, task: Task) -> Text:
            done = f"{task.completed:.0f}" if task.total is None else f"{task.completed:.0f}/{task.total:.0f}"
            speed = task.finished_speed or task.speed or 0.0
            if speed < SLOW:  # too few units in the period below: use the mean since the start
                speed = task.completed / (task.elapsed or 1)
            if not speed:
                return Text(done)
            text = pace_text(speed, task.fields["unit"])
            if task.remaining:
                text += f"  {duration_text(task.remaining / speed)} left"
            return Text.assemble(done, " ", (text, "cyan"))

    class Latest(ProgressColumn):
        """Text of the last update; the only column that a narrow terminal truncates."""

        def render(self, task: Task) -> Text:
            return Text(task.fields["text"], style="dim", no_wrap=True, overflow="ellipsis")

    def whole() -> Column:
        return Column(no_wrap=True)

    return Progress(
        TextColumn("{task.description}", markup=False, table_column=whole()),
        BarColumn(bar_width=min(28, err().width // 5), table_column=whole()),
        Rate(table_column=whole()),
        Latest(),
        console=err(),
        transient=True,
        speed_estimate_period=15.0,
    )


WIDTH_WITHOUT_TERMINAL = 120
"""Width of output to a file or a pipe, unless COLUMNS is set."""

_quiet = False


@contextmanager
def active(*, quiet: bool = False) -> Iterator[None]:
    """Show what the library logs and its progress while the block runs; `quiet` leaves only warnings and errors."""
    global _quiet
    logger, handler = logging.getLogger("fgvc_cli"), _Handler()
    before = _quiet, logger.level, library_progress.display
    _quiet, library_progress.display = quiet, progress
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        _quiet, level, library_progress.display = before
        logger.setLevel(level)


class _Handler(logging.Handler):
    """Prints log records: INFO as a note, anything above as a warning."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record, with the traceback of its error under `--debug`."""
        if record.exc_info and settings.current().debug:
            sys.stderr.write("".join(traceback.format_exception(record.exc_info[1])))
        (note if record.levelno <= logging.INFO else warn)(record.getMessage())


def out() -> Console:
    """Return the rich console of standard output, for results."""
    return _console(stderr=False, terminal=_is_terminal(sys.stdout), columns=os.environ.get("COLUMNS"))


def err() -> Console:
    """Return the rich console of standard error, for everything else."""
    return _console(stderr=True, terminal=_is_terminal(sys.stderr), columns=os.environ.get("COLUMNS"))


def has_bars() -> bool:
    """Return whether progress is shown as bars on standard error."""
    return _is_terminal(sys.stderr) and not _quiet and is_reporting()


def note(text: str) -> None:
    """Print a note to standard error, unless `--quiet`."""
    if not _quiet:
        _write_line(as_options(text))


def warn(text: str) -> None:
    """Print a warning to standard error."""
    _write_line(as_options(text), label="warning: ", style="yellow")


def error(text: str) -> None:
    """Print an error to standard error."""
    _write_line(text, label="fgvc: error: ", style="bold red")


def table(*headings: str, whole: Collection[str] = ()) -> Table:
    """Return an empty table with a line below its headings; a colon at the end marks a column of numbers.

    Cells of the columns in `whole` do not wrap.
    """
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for heading in headings:
        number, name = heading.endswith(":"), heading.rstrip(":")
        justify: JustifyMethod = "right" if number else "left"
        table.add_column(name, justify=justify, overflow="fold", no_wrap=number or name in whole)
    return table


def print_facts(facts: Mapping[str, str]) -> None:
    """Print one fact per line, without the empty ones."""
    from rich.table import Table

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in facts.items():
        if value:
            grid.add_row(name, printable(value))
    out().print(grid)


def print_json(document: Any) -> None:
    """Print one JSON document to standard output.

    Dataclasses become objects, paths strings, tuples, sets and arrays lists; NaN and infinity become null.
    """
    utf8 = (sys.stdout.encoding or "").lower().replace("-", "").startswith("utf")
    sys.stdout.write(json.dumps(_plain(document), indent=2, ensure_ascii=not utf8, allow_nan=False) + "\n")


class JsonDocument:
    """One JSON document on standard output, written piece by piece: some values, then a list item by item.

    Args:
        head: the values before the list.
        name: of the list.
    """

    def __init__(self, head: Mapping[str, Any], name: str) -> None:
        before = "".join(f"{json.dumps(key)}: {_json(value)},\n  " for key, value in head.items())
        sys.stdout.write(f"{{\n  {before}{json.dumps(name)}: [")
        self._separator = "\n    "

    def add(self, item: Any) -> None:
        """Write an item of the list."""
        sys.stdout.write(self._separator + _json(item))
        self._separator = ",\n    "

    def close(self, tail: Mapping[str, Any]) -> None:
        """Write the end of the list, the values after it, and the end of the document."""
        end = "]" if self._separator == "\n    " else "\n  ]"
        after = "".join(f",\n  {json.dumps(key)}: {_json(value)}" for key, value in tail.items())
        sys.stdout.write(f"{end}{after}\n}}\n")
        sys.stdout.flush()


def _json(value: Any) -> str:
    return json.dumps(_plain(value), allow_nan=False)


def progress(description: str, total: int | None, unit: str = "images") -> AbstractContextManager[Progress]:
    """Show progress on standard error; see `fgvc_cli.progress.progress`.

    On a terminal that is a bar, elsewhere a line every 20 seconds (none for work under 10 seconds), and nothing under
    `--quiet`.
    """
    if _quiet or not is_reporting():
        return nullcontext(Silent())
    if _is_terminal(sys.stderr):
        return _bar(description, total, unit)
    return nullcontext(_PlainLines(description, total, unit))


def _write_line(text: str, label: str = "", style: str = "") -> None:
    if not is_reporting():  # another process of a distributed training prints
        return
    text = re.sub(r"\n(?!  )", r"\\n", printable(text, keep="\n"))  # only lines of the library are indented
    if not _is_terminal(sys.stderr):
        sys.stderr.write(f"{label}{text}\n")
        sys.stderr.flush()
        return
    from rich.text import Text

    # soft_wrap keeps paths and commands in one piece for copying
    err().print(Text.assemble((label, style), text), soft_wrap=True)


def _is_terminal(stream: TextIO) -> bool:
    """Return whether a stream can show colors and move its cursor."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


@cache
def _console(stderr: bool, terminal: bool, columns: str | None) -> Console:
    """Return a console; `columns` is the variable COLUMNS, which rich reads itself."""
    from rich.console import Console

    class SafeConsole(Console):
        """Prints names that contain control characters without their effect."""

        def render_str(self, text: str, **options: Any) -> Any:
            return super().render_str(printable(text, keep="\n\t"), **options)

    fixed = None if terminal or columns is not None else WIDTH_WITHOUT_TERMINAL
    # force_terminal overrides FORCE_COLOR and TTY_COMPATIBLE: a pipe gets no colors.
    return SafeConsole(stderr=stderr, force_terminal=terminal, width=fixed, highlight=False, markup=False, emoji=False)


def _plain(value: Any) -> Any:
    """Convert a value to JSON types."""
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
    if hasattr(value, "tolist"):  # NumPy scalars and arrays, tensors
        return _plain(value.tolist())
    raise TypeError(f"{type(value).__name__} is not JSON serializable")
