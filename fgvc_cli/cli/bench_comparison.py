"""Tables of a comparison of two benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fgvc_cli.benchmarking.comparing import MIN_ROUNDS, Comparison, FeedPair, RowPair, WorkPair
from fgvc_cli.benchmarking.text import busy_cpu, failures, row_names, sections, speed
from fgvc_cli.cli.console import out
from fgvc_cli.cli.lazy import as_options
from fgvc_cli.cli.tables import Column, print_sections
from fgvc_cli.formatting import bytes_of, rate, ratio

WITHIN = "~"
"""Prefix of a ratio within the spread."""
MAX_LISTED = 10
"""Number of rows that only one has that are listed."""


def show_comparison(comparison: Comparison, first: str, second: str) -> None:
    """Print what differed, the ratios, and what only one of the two files (`first`, `second`) has."""
    console = out()
    console.print(f"A  {first}\nB  {second}\n", soft_wrap=True)
    for line in _differences(comparison):
        console.print(line, soft_wrap=True)
    if comparison.rows:
        console.print()
        print_sections("head + optimizer", *_labels(comparison.rows), _columns(comparison.rows))
    _show_epochs(comparison.rows)
    _show_explainers(comparison.rows)
    _show_feeds(comparison.feeds)
    console.print()
    for line in (*_remarks(comparison), *_not_compared(comparison)):
        console.print(as_options(line), soft_wrap=True)


def _differences(comparison: Comparison) -> list[str]:
    """Return a line for each fact and setting that differed."""
    width = max((len(difference.name) for difference in comparison.differences), default=0)
    lines = [f"  {d.name:{width}}  {_value(d.first)} -> {_value(d.second)}" for d in comparison.differences]
    head = "differences between A and B:" if lines else "machine, versions and settings are the same"
    matrices = comparison.matrix_ratio
    return [head, *lines] + ([f"rate of large matrix products, B/A: {ratio(matrices)}"] if matrices else [])


def _remarks(comparison: Comparison) -> list[str]:
    """Return how to read the ratios."""
    works = [work for pair in comparison.rows for work in pair.works]
    if not works:
        return []
    lines = ["A, B: images per second. B/A above 1: B is faster; of memory, below 1: B needs less"]
    for name, rows in (("A", [p.first for p in comparison.rows]), ("B", [p.second for p in comparison.rows])):
        lines += [f"{name}: {line}" for line in busy_cpu(rows)]
    if any(work.clear is False for work in works):
        lines.append(f"{WITHIN}: no clear difference; the quartiles of the two times overlap")
    if any(work.clear is None for work in works):
        lines.append(f"?: timed fewer than {MIN_ROUNDS} times, so the spread is unknown")
    return lines


def _verdict(pair: WorkPair | None) -> str:
    """Format a ratio of images per second, marked where it is not clear."""
    if pair is None:
        return ""
    return {True: "", False: WITHIN, None: "?"}[pair.clear] + ratio(pair.ratio)


def _columns(pairs: Sequence[RowPair]) -> list[Column]:
    several = len({pair.first.batch_size for pair in pairs}) > 1
    columns = [Column("\nbatch", [str(pair.first.batch_size) if several else "" for pair in pairs])]
    for name in ("update", "predict"):
        columns += _compared(name, [pair.work(name) for pair in pairs])
    updates = [pair.work("update") for pair in pairs]
    memory = [work.memory_ratio if work else None for work in updates]
    return [
        *columns,
        Column("memory\nA", [bytes_of(work.first.peak_memory) if work else "" for work in updates]),
        Column("\nB", [bytes_of(work.second.peak_memory) if work else "" for work in updates], joined=True),
        Column("\nB/A", [ratio(value) for value in memory], joined=True),
    ]


def _compared(name: str, works: Sequence[WorkPair | None]) -> list[Column]:
    """Return the columns of an operation: images per second of A and of B, and their ratio."""
    return [
        Column(f"{name}\nA", [speed(work.first) if work else "" for work in works]),
        Column("\nB", [speed(work.second) if work else "" for work in works], joined=True),
        Column("\nB/A", [_verdict(work) for work in works], joined=True),
    ]


def _show_epochs(pairs: Sequence[RowPair]) -> None:
    timed = [(pair, work) for pair in pairs if (work := pair.work("epoch"))]
    if timed:
        out().print()
        print_sections("epochs", *_labels([pair for pair, _ in timed]), _compared("images/s", [w for _, w in timed]))


def _show_explainers(pairs: Sequence[RowPair]) -> None:
    """Print saliency maps once per head, as they do not depend on the optimizer."""
    found: dict[tuple[str, str], WorkPair] = {}
    for pair, section in zip(pairs, sections([pair.first for pair in pairs]), strict=True):
        for work in pair.works:
            if work.name not in ("update", "predict", "epoch"):
                found.setdefault((section, f"{pair.first.head}: {work.name}"), work)
    if found:
        out().print()
        names, titles = [name for _, name in found], [section for section, _ in found]
        print_sections("saliency maps", names, titles, _compared("images/s", list(found.values())))


def _show_feeds(pairs: Sequence[FeedPair]) -> None:
    if not pairs:
        return
    columns = [
        Column("images/s\nA", [rate(pair.first.images_per_second) for pair in pairs]),
        Column("\nB", [rate(pair.second.images_per_second) for pair in pairs], joined=True),
        Column("\nB/A", [ratio(pair.ratio) for pair in pairs], joined=True),
    ]
    out().print()
    print_sections("input pipeline", [pair.first.name for pair in pairs], [""] * len(pairs), columns)


def _not_compared(comparison: Comparison) -> list[str]:
    """Return a line for each row that failed or that only one has."""
    lines = []
    for name, rows in (("A", [p.first for p in comparison.rows]), ("B", [p.second for p in comparison.rows])):
        lines += [f"{name}: {line}" for line in failures(rows)]
    for name, only in (("A", comparison.only_first), ("B", comparison.only_second)):
        named = [f"{row.title} at {row.image_size} px, batches of {row.batch_size}" for row in only[:MAX_LISTED]]
        lines += [f"only in {name}: {text}" for text in named]
        if len(only) > MAX_LISTED:
            lines.append(f"only in {name}: {len(only) - MAX_LISTED} more")
    return lines


def _labels(pairs: Sequence[RowPair]) -> tuple[list[str], list[str]]:
    rows = [pair.first for pair in pairs]
    return row_names(rows), sections(rows)


def _value(value: Any) -> str:
    """Format the value of a fact or setting."""
    if value is None or value == "" or value == []:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
