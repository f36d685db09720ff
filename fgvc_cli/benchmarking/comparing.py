"""Two benchmarks beside each other: what was different, and how much faster or smaller the second is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fgvc_cli.benchmarking.results import Feed, Report, Row, Work
from fgvc_cli.errors import FgvcError

LEAST_ROUNDS = 3
"""Fewer rounds than this say nothing of their spread."""

MEASURED = ("date", "multiply_adds_per_second")
"""Facts about the machine that differ from run to run on the same one."""
UNTOLD = ("image_size", "batch_size", "seconds")
"""Settings that are no circumstances: rows are matched by their sizes, and measuring for longer changes nothing."""
ASKED = ("epoch", "pipeline", "dataset", "data", "explainers")
"""Settings of works that one report may have and the other not: only where both have them a difference matters."""


@dataclass(frozen=True)
class Difference:
    """A circumstance that was not the same.

    Attributes:
        name: of the fact or setting.
        first, second: its values; None where a report does not say.
    """

    name: str
    first: Any
    second: Any


@dataclass(frozen=True)
class WorkPair:
    """One piece of work that both measured.

    Attributes:
        name: "update", "predict", "epoch", or the explainer's name.
        first, second: what was found.
    """

    name: str
    first: Work
    second: Work

    @property
    def ratio(self) -> float:
        """Images a second of the second beside the first: above 1, the second is faster."""
        return self.second.images_per_second / self.first.images_per_second

    @property
    def memory_ratio(self) -> float | None:
        """Peak memory of the second beside the first: below 1, the second needs less; None: not measured."""
        if not self.first.peak_memory or self.second.peak_memory is None:
            return None
        return self.second.peak_memory / self.first.peak_memory

    @property
    def clear(self) -> bool | None:
        """Whether the difference is more than the spread: the quartiles of the two times do not overlap.

        None: one of the two was timed fewer than `LEAST_ROUNDS` times. Quartiles are of rounds within a run: what
        differs between runs of the same program, such as another load on the machine, is not in them.
        """
        if min(self.first.timing.rounds, self.second.timing.rounds) < LEAST_ROUNDS:
            return None
        (low, high), (other_low, other_high) = _quartiles(self.first), _quartiles(self.second)
        return high < other_low or other_high < low


@dataclass(frozen=True)
class RowPair:
    """One combination, at one image size and batch size, that both have.

    Attributes:
        first, second: the rows.
        works: what both measured, in the order update, predict, epoch, explainers.
    """

    first: Row
    second: Row
    works: tuple[WorkPair, ...]

    def work(self, name: str) -> WorkPair | None:
        """Return a piece of work by name, or None."""
        return next((work for work in self.works if work.name == name), None)


@dataclass(frozen=True)
class FeedPair:
    """One way of the input pipeline that both measured."""

    first: Feed
    second: Feed

    @property
    def ratio(self) -> float:
        """Images a second of the second beside the first."""
        return self.second.images_per_second / self.first.images_per_second


@dataclass(frozen=True)
class Comparison:
    """Two reports beside each other.

    Attributes:
        differences: of machine and settings.
        rows: that both have, in the order of the first.
        only_first, only_second: rows that the other does not have, or has at other sizes.
        feeds: that both have.
        matrix_ratio: rate of large matrix products of the second beside the first; None: not known.
    """

    differences: tuple[Difference, ...]
    rows: tuple[RowPair, ...]
    only_first: tuple[Row, ...]
    only_second: tuple[Row, ...]
    feeds: tuple[FeedPair, ...]
    matrix_ratio: float | None

    def refuse_if_empty(self, first: str, second: str) -> None:
        """Say in one line that the two, so called, have nothing in common.

        Raises:
            FgvcError: they have not.
        """
        if self.feeds or any(pair.works for pair in self.rows):
            return
        if self.rows:
            pair = self.rows[0]
            why = pair.first.failed or pair.second.failed or "other works were measured"
            raise FgvcError(f"{first} and {second} have no figure in common: {_sized(pair.first)}: {why}")
        have = [
            f"{name} has {_sized(rows[0])}" + (f" and {len(rows) - 1} more" if len(rows) > 1 else "")
            for name, rows in ((first, self.only_first), (second, self.only_second))
            if rows
        ]
        which = f": {'; '.join(have)}" if have else ""
        raise FgvcError(f"{first} and {second} have no combination in common at the same sizes{which}.")

    def as_json(self) -> dict[str, Any]:
        """Return the JSON document: ratios are of images a second, and of bytes, second beside first."""
        return {
            "differences": {d.name: {"first": d.first, "second": d.second} for d in self.differences},
            "matrix_ratio": self.matrix_ratio,
            "rows": [_row_json(pair) for pair in self.rows],
            "only_first": [_identity(row) for row in self.only_first],
            "only_second": [_identity(row) for row in self.only_second],
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
    """Match two reports by combination (what the optimizer is built over included), image size and batch size."""
    firsts, seconds = ({_key(row): row for row in report.rows} for report in (first, second))
    feeds = {feed.name: feed for feed in second.feeds}
    return Comparison(
        differences=(
            *_differences(first.machine, second.machine, MEASURED),
            *_differences(*_settings(first.settings, second.settings), UNTOLD),
        ),
        rows=tuple(_pair(row, seconds[key]) for key, row in firsts.items() if key in seconds),
        only_first=tuple(row for key, row in firsts.items() if key not in seconds),
        only_second=tuple(row for key, row in seconds.items() if key not in firsts),
        feeds=tuple(FeedPair(feed, feeds[feed.name]) for feed in first.feeds if feed.name in feeds),
        matrix_ratio=_ratio(*(report.machine.get("multiply_adds_per_second") for report in (first, second))),
    )


def _key(row: Row) -> tuple[Any, ...]:
    return row.backbone, row.head, row.optimizer_title, row.image_size, row.batch_size


def _pair(first: Row, second: Row) -> RowPair:
    found = [_works(row) for row in (first, second)]
    return RowPair(first, second, tuple(WorkPair(n, w, found[1][n]) for n, w in found[0].items() if n in found[1]))


def _works(row: Row) -> dict[str, Work]:
    works = {"update": row.update, "predict": row.predict, "epoch": row.epoch, **row.explain}
    return {name: work for name, work in works.items() if work is not None}


def _differences(first: Mapping[str, Any], second: Mapping[str, Any], without: tuple[str, ...]) -> list[Difference]:
    names = [name for name in dict.fromkeys((*first, *second)) if name not in without]
    pairs = [Difference(name, first.get(name), second.get(name)) for name in names]
    # by their JSON: one may have come from a file, where a tuple is a list
    return [pair for pair in pairs if json.dumps(pair.first, default=str) != json.dumps(pair.second, default=str)]


def _settings(first: Mapping[str, Any], second: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the settings of both without those that only one report's works depend on."""
    apart = {name for name in ASKED if not (first.get(name) and second.get(name))}
    kept = [{name: value for name, value in settings.items() if name not in apart} for settings in (first, second)]
    for settings, other in zip(kept, reversed([dict(settings) for settings in kept]), strict=True):
        if "explainers" in settings:  # options by explainer's name
            settings["explainers"] = {n: o for n, o in settings["explainers"].items() if n in other["explainers"]}
    return kept[0], kept[1]


def _quartiles(work: Work) -> tuple[float, float]:
    """Return the quartiles of the milliseconds an image takes: epochs may be of different numbers of images."""
    return work.timing.low / work.images, work.timing.high / work.images


def _ratio(first: float | None, second: float | None) -> float | None:
    return second / first if first and second else None


def _sized(row: Row) -> str:
    return f"{row.backbone} + {row.head} + {row.optimizer_title} at {row.image_size} px, batches of {row.batch_size}"


def _identity(row: Row) -> dict[str, Any]:
    return {
        "backbone": row.backbone,
        "head": row.head,
        "optimizer": row.optimizer_title,
        "image_size": row.image_size,
        "batch_size": row.batch_size,
        "failed": row.failed,
    }


def _row_json(pair: RowPair) -> dict[str, Any]:
    identity = {name: value for name, value in _identity(pair.first).items() if name != "failed"}
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
    return {**identity, "works": works, "failed_first": pair.first.failed, "failed_second": pair.second.failed}
