"""Where text goes: results to standard output, notes, warnings and progress to standard error.

Rich is imported when something is first drawn with it, so that commands which print plain text start quickly.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, TextIO

from fgvc_cli.display.progress import Progress, progress_display

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from rich.console import Console

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
