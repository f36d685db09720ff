"""Compare two benchmarks: what differed, and how much faster or smaller the second is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fgvc_cli.benchmarking.results import Feed, Report, Row, Work
from fgvc_cli.errors import FgvcError

MIN_ROUNDS = 3
"""Fewer rounds do not show a spread."""

MEASURED = ("date", "macs_per_second")
"""Facts about the machine that differ from run to run."""
IRRELEVANT = ("image_size", "batch_size", "seconds")
"""Settings that do not distinguish results: rows are matched by size, and the time limit changes only the spread."""
OPTIONAL = ("epoch", "pipeline", "dataset", "data", "explainers")
"""Settings of measurements that one report may lack; a difference matters only where both have them."""


@dataclass(frozen=True)
class Difference:
    """A fact or setting that differs; None: missing in that report."""

    name: str
    first: Any
    second: Any


@dataclass(frozen=True)
class WorkPair:
    """An operation that both reports measured: "update", "predict", "epoch", or the explainer's name."""

    name: str
    first: Work
    second: Work

    @property
    def ratio(self) -> float:
        """Throughput of the second divided by that of the first; above 1 the second is faster."""
        return self.second.images_per_second / self.first.images_per_second

    @property
    def memory_ratio(self) -> float | None:
        """Peak memory of the second divided by that of the first; None: not measured."""
        if not self.first.peak_memory or self.second.peak_memory is None:
            return None
        return self.second.peak_memory / self.first.peak_memory

    @property
    def clear(self) -> bool | None:
        """Whether the quartiles of the two times per image do not overlap.

        None: one of them was timed fewer than `MIN_ROUNDS` times. Quartiles are of the rounds of one run; variation
        between runs of the same program, such as from other load on the machine, is not included.
        """
        if min(self.first.timing.rounds, self.second.timing.rounds) < MIN_ROUNDS:
            return None
        first, second = self.first, self.second
        low, high = first.timing.low / first.images, first.timing.high / first.images
        return high < second.timing.low / second.images or second.timing.high / second.images < low


@dataclass(frozen=True)
class RowPair:
    """A combination at one image size and batch size in both reports, and the operations that both measured."""

    first: Row
    second: Row
    works: tuple[WorkPair, ...]

    def work(self, name: str) -> WorkPair | None:
        """Return an operation by name, or None."""
        return next((work for work in self.works if work.name == name), None)


@dataclass(frozen=True)
class FeedPair:
    """A case of the input pipeline that both reports measured."""

    first: Feed
    second: Feed

    @property
    def ratio(self) -> float:
        """Throughput of the second divided by that of the first."""
        return self.second.images_per_second / self.first.images_per_second


@dataclass(frozen=True)
class Comparison:
    """Two reports compared.

    Attributes:
        differences: of machine and settings.
        rows: in both reports, in the order of the first.
        only_first, only_second: rows missing in the other report at the same sizes.
        feeds: in both reports.
        matrix_ratio: rate of large matrix products of the second divided by that of the first; None: unknown.
    """

    differences: tuple[Difference, ...]
    rows: tuple[RowPair, ...]
    only_first: tuple[Row, ...]
    only_second: tuple[Row, ...]
    feeds: tuple[FeedPair, ...]
    matrix_ratio: float | None

    def check(self, first: str, second: str) -> None:
        """Refuse a comparison without a common measurement; `first` and `second` name the reports in the message.

        Raises:
            FgvcError: the reports have no measurement in common.
        """
        if self.feeds or any(pair.works for pair in self.rows):
            return
        if self.rows:
            pair = self.rows[0]
            why = pair.first.failed or pair.second.failed or "they measured different operations"
            raise FgvcError(f"{first} and {second} have no measurement in common: {_sized(pair.first)}: {why}")
        have = [
            f"{name} has {_sized(rows[0])}" + (f" and {len(rows) - 1} more" if len(rows) > 1 else "")
            for name, rows in ((first, self.only_first), (second, self.only_second))
            if rows
        ]
        details = f": {'; '.join(have)}" if have else ""
        raise FgvcError(f"{first} and {second} have no combination in common at the same sizes{details}")

    def as_json(self) -> dict[str, Any]:
        """Return the JSON document; ratios are second divided by first, of images per second and of bytes."""
        return {
            "differences": {d.name: {"first": d.first, "second": d.second} for d in self.differences},
            "matrix_ratio": self.matrix_ratio,
            "rows": [_row_json(pair) for pair in self.rows],
            "only_first": [{**row.identity, "failed": row.failed} for row in self.only_first],
            "only_second": [{**row.identity, "failed": row.failed} for row in self.only_second],
            "feeds": [
                {
                    "name": pair.first.name,
                    "first": pair.first.images_per_second,
                    "second": pair.second.images_per_second,
                    "ratio": pair.ratio,
                }
                for pair in self.feeds
            ],
        }


def compare(first: Report, second: Report) -> Comparison:
    """Match two reports by combination (base optimizer included), image size and batch size."""
    firsts, seconds = ({tuple(row.identity.values()): row for row in report.rows} for report in (first, second))
    feeds = {feed.name: feed for feed in second.feeds}
    rate, other_rate = (report.machine.get("macs_per_second") for report in (first, second))
    return Comparison(
        differences=(
            *_differences(first.machine, second.machine, MEASURED),
            *_differences(*_comparable_settings(first.settings, second.settings), IRRELEVANT),
        ),
        rows=tuple(_pair(row, seconds[key]) for key, row in firsts.items() if key in seconds),
        only_first=tuple(row for key, row in firsts.items() if key not in seconds),
        only_second=tuple(row for key, row in seconds.items() if key not in firsts),
        feeds=tuple(FeedPair(feed, feeds[feed.name]) for feed in first.feeds if feed.name in feeds),
        matrix_ratio=other_rate / rate if rate and other_rate else None,
    )


def _pair(first: Row, second: Row) -> RowPair:
    works = second.works
    return RowPair(first, second, tuple(WorkPair(n, w, works[n]) for n, w in first.works.items() if n in works))


def _differences(first: Mapping[str, Any], second: Mapping[str, Any], without: tuple[str, ...]) -> list[Difference]:
    names = [name for name in dict.fromkeys((*first, *second)) if name not in without]
    pairs = [Difference(name, first.get(name), second.get(name)) for name in names]
    # As JSON: one may have been read from a file, where a tuple is a list.
    return [pair for pair in pairs if json.dumps(pair.first, default=str) != json.dumps(pair.second, default=str)]


def _comparable_settings(first: Mapping[str, Any], second: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return both settings without those of measurements that only one report has."""
    missing = {name for name in OPTIONAL if not (first.get(name) and second.get(name))}
    kept = [{name: value for name, value in settings.items() if name not in missing} for settings in (first, second)]
    if "explainers" not in missing:
        options = [settings["explainers"] for settings in kept]
        for settings, other in zip(kept, reversed(options), strict=True):
            settings["explainers"] = {n: o for n, o in settings["explainers"].items() if n in other}
    return kept[0], kept[1]


def _sized(row: Row) -> str:
    return f"{row.title} at {row.image_size} px, batches of {row.batch_size}"


def _row_json(pair: RowPair) -> dict[str, Any]:
    works = {
        work.name: {
            "first": work.first.images_per_second,
            "second": work.second.images_per_second,
            "ratio": work.ratio,
            "clear": work.clear,
            "memory_ratio": work.memory_ratio,
        }
        for work in pair.works
    }
    failed = {"failed_first": pair.first.failed, "failed_second": pair.second.failed}
    return {**pair.first.identity, "works": works, **failed}
