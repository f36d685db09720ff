"""Numbers and names as text, the same in the terminal, in pictures and in the HTML report."""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from fgvc_cli.sizes import bytes_text


def run_labels(runs: Sequence[str]) -> list[str]:
    """Return the name of each run's folder, or its whole path where several folders have that name."""
    names = [Path(run).absolute().name for run in runs]  # absolute: the name of "." is empty
    times = Counter(names)
    return [name if times[name] == 1 else run for name, run in zip(names, runs, strict=True)]


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: `1 epoch`, `3 epochs`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


SLOW = 0.2
"""Units a second below which the seconds of one are shown instead."""


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


def percent(share: float | None) -> str:
    """Write a fraction as a percentage; nothing for None."""
    return "" if share is None else f"{100 * share:.1f} %"


def quoted(path: str) -> str:
    """Write a path so that it can be pasted into a shell, from the current folder if it is below that."""
    below = Path(path).absolute()
    here = Path.cwd()
    return shlex.quote(str(below.relative_to(here)) if below.is_relative_to(here) else path)


def rate(value: float) -> str:
    """Write a rate with three figures: "0.0412", "5.13", "24.6", "1250"."""
    if value >= 99.95 or value <= 0:
        return f"{value:.0f}"
    return f"{value:.{2 - math.floor(math.log10(value * 1.0005))}f}"


def ratio(value: float | None) -> str:
    """Write a ratio with two decimals, three where it is small; nothing for None."""
    return "" if value is None else f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"


def share(value: float | None) -> str:
    """Write a fraction as a whole percentage; nothing for None."""
    return "" if value is None else f"{100 * value:.0f} %" if value >= 0.1 else f"{100 * value:.1f} %"


def bytes_of(value: int | None) -> str:
    """Write bytes; nothing for None."""
    return "" if value is None else bytes_text(value)


def count(value: float | None) -> str:
    """Write a large number with three figures: "23.5 M", "12.3 G"; nothing for None and 0."""
    if not value:
        return ""
    for unit, factor in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        scaled = value / factor
        if scaled >= 0.9995:
            return f"{scaled:.0f} {unit}" if scaled >= 99.95 else f"{scaled:.1f} {unit}"
    return f"{value:.0f}"
