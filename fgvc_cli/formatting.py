"""Numbers, sizes and paths as text, the same in the terminal, in figures and in the HTML report."""

from __future__ import annotations

import html
import math
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from fgvc_cli.errors import UsageError


def expanded(path: str | Path) -> Path:
    """Return a path with a leading `~` or `~user` replaced by the home folder.

    Raises:
        UsageError: the user is unknown, or the path is empty.
    """
    if not str(path):
        raise UsageError("a path is empty; name a folder or a file (an unset variable of the shell?)")
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UsageError(f"{path}: the home folder of that user is unknown; write the path in full") from None


def run_labels(runs: Sequence[str]) -> list[str]:
    """Return the name of each run's folder, or its path if several folders have that name."""
    names = [Path(run).absolute().name for run in runs]  # absolute: the name of "." is empty
    times = Counter(names)
    return [name if times[name] == 1 else run for name, run in zip(names, runs, strict=True)]


def printable(text: str, keep: str = "") -> str:
    """Escape what would move the cursor, change colors, start a line or reorder text; not the characters in `keep`.

    File and class names may contain any of it.
    """
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c in keep or c in SPACES else c.encode("unicode_escape").decode() for c in text
    )


SPACES = "\u00a0\u2002\u2003\u2009\u202f\u3000"
"""Characters that are harmless though not printable to Python."""


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun: `1 epoch`, `3 epochs`; `plural` is that of an irregular noun."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


SLOW = 0.2
"""Units per second below which seconds per unit are shown."""


def pace_text(rate: float, unit: str) -> str:
    """Format a rate, or the time per unit if that is long: `8.1 images/s`, `25 s each`."""
    if rate < SLOW:
        return f"{1 / rate:.0f} s each"
    return f"{rate:.2f} {unit}/s" if rate < 1 else f"{rate:.1f} {unit}/s" if rate < 10 else f"{rate:.0f} {unit}/s"


def duration_text(seconds: float) -> str:
    """Format a duration: `0:07`, `12:30`, `3:05:00`."""
    minutes, rest = divmod(max(round(seconds), 0), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def percent(share: float | None) -> str:
    """Format a fraction as a percentage with one decimal; empty for None."""
    return "" if share is None else f"{100 * share:.1f} %"


def quoted(path: str) -> str:
    """Quote a path for a shell, relative to the current folder if it is inside it."""
    below = Path(path).absolute()
    here = Path.cwd()
    return shlex.quote(str(below.relative_to(here)) if below.is_relative_to(here) else path)


def rate(value: float) -> str:
    """Format a rate with three significant digits: `0.0412`, `5.13`, `24.6`, `1250`."""
    if value >= 99.95 or value <= 0:
        return f"{value:.0f}"
    return f"{value:.{2 - math.floor(math.log10(value * 1.0005))}f}"


def ratio(value: float | None) -> str:
    """Format a ratio with two decimals, or three if it is small; empty for None."""
    return "" if value is None else f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"


def share(value: float | None) -> str:
    """Format a fraction as a whole percentage, or with one decimal if it is small; empty for None."""
    return "" if value is None else f"{100 * value:.0f} %" if value >= 0.1 else f"{100 * value:.1f} %"


BYTES = {
    "": 1, "B": 1, "KB": 1000, "MB": 1000**2, "GB": 1000**3, "TB": 1000**4,
    "KIB": 1024, "MIB": 1024**2, "GIB": 1024**3, "TIB": 1024**4,
}  # fmt: skip


def parse_bytes(text: str, where: str) -> int:
    """Parse a size such as "50GB", "1.5 TB", "512MiB", "0" or a number of bytes.

    Raises:
        UsageError: it is not a size; names the option or variable `where`.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip(), re.IGNORECASE)
    factor = BYTES.get(match[2].upper()) if match else None
    if match is None or factor is None:
        raise UsageError(f"{where} {text}: give a size such as 50GB, 1.5TB or 0")
    return round(float(match[1]) * factor)


def bytes_text(amount: float) -> str:
    """Format bytes: "412 kB", "2.4 GB"."""
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if amount >= 0.9995 * factor:
            value = amount / factor
            return f"{value:.0f} {unit}" if value >= 99.5 or value == round(value) else f"{value:.1f} {unit}"
    return f"{amount:.0f} bytes"


def bytes_of(value: int | None) -> str:
    """Format bytes; empty for None."""
    return "" if value is None else bytes_text(value)


def count(value: float | None) -> str:
    """Format a large number: `23.5 M`, `12.3 G`; empty for None and 0."""
    if not value:
        return ""
    for unit, factor in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        scaled = value / factor
        if scaled >= 0.9995:
            return f"{scaled:.0f} {unit}" if scaled >= 99.95 else f"{scaled:.1f} {unit}"
    return f"{value:.0f}"


def html_table(rows: Iterable[Sequence[str]], header: Sequence[str] = ()) -> str:
    """Return an HTML table, escaped, for notebooks; without a header, the first cell of each row is its heading."""
    cells = [[f"<td>{html.escape(cell)}</td>" for cell in row] for row in rows]
    if header:
        cells.insert(0, [f"<th>{html.escape(cell)}</th>" for cell in header])
    else:
        cells = [[row[0].replace("td>", "th>"), *row[1:]] for row in cells]
    return "<table>" + "".join("<tr>" + "".join(row) + "</tr>" for row in cells) + "</table>"
