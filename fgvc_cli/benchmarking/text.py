"""Benchmark figures and names as text."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fgvc_cli.benchmarking.results import Row, Work
from fgvc_cli.sizes import bytes_text

WAITED = 0.1
"""Share of its time that work may wait for the processor before its figures are doubted."""


def combination(row: Row) -> str:
    """Name a row whole: "swin_t + pim + sam over sgd"."""
    return f"{row.backbone} + {row.head} + {row.optimizer_title}"


def row_names(rows: Sequence[Row]) -> list[str]:
    """Name each row below the name of its section: "pim + sam over sgd"."""
    return [f"{row.head} + {row.optimizer_title}" for row in rows]


def sections(rows: Sequence[Row]) -> list[str]:
    """Return the title above each row: its backbone, and the image size if there are several."""
    several = len({row.image_size for row in rows}) > 1
    return [f"{row.backbone} at {row.image_size} px" if several else row.backbone for row in rows]


def failures(rows: Sequence[Row]) -> list[str]:
    """Return a line for each reason why rows failed, wholly or in part; those of one backbone that share it are one."""
    alike: dict[tuple[str, str, str], dict[str, list[str]]] = {}
    for row in rows:
        if row.failed:
            extent = "in part" if row.update else "failed"
            heads = alike.setdefault((extent, row.backbone, row.failed), {})
            heads.setdefault(row.head, []).append(row.optimizer_title)
    return [
        f"{extent}: {backbone} + {', '.join(f'{head} + {_either(titles)}' for head, titles in heads.items())}: {reason}"
        for (extent, backbone, reason), heads in alike.items()
    ]


def kept_waiting(rows: Sequence[Row]) -> list[str]:
    """Return a line that says that the processor had other work while updates were timed, if it had."""
    shares = [row.update.timing.waited or 0.0 for row in rows if row.update]
    late = [waited for waited in shares if waited > WAITED]
    if not late:
        return []
    return [
        f"the processor had other work: {len(late)} of {len(shares)} updates waited for it, the most for "
        f"{share(max(late))} of its time. These times are too long, and ratios may be wrong: measure again when it is "
        "free."
    ]


def _either(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"({', '.join(names)})"


def spread(work: Work | None) -> str:
    """Write milliseconds as "123.4 ± 1.2": the median, and half of what lies between the quartiles."""
    if work is None:
        return ""
    timing = work.timing
    digits = 0 if timing.median >= 1000 else 1 if timing.median >= 10 else 2
    if timing.rounds < 2:
        return f"{timing.median:.{digits}f} (once)"
    return f"{timing.median:.{digits}f} ± {(timing.high - timing.low) / 2:.{digits}f}"


def speed(work: Work | None) -> str:
    """Write images a second."""
    return "" if work is None else rate(work.images_per_second)


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
