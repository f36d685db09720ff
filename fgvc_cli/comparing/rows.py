"""The rows of a comparison: runs that differ in nothing but the seed are one."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fgvc_cli.comparing.compared_run import ComparedRun

COMPONENTS = ("backbone", "head", "optimizer")
SHARED = ("dataset", "train", "augment")
"""Sections of settings that belong to no one of a row's components."""
OF_A_RUN = {
    "train": {"seed", "validation_seed", "device", "workers", "strict_data", "track", "cache"},
    "dataset": {"name", "data"},
}
"""Settings that may differ between runs of one row: seeds, and where and how images are read. Which images they are
is told by the images themselves."""


@dataclass(frozen=True)
class Spread:
    """A figure over the runs of a row.

    Attributes:
        values: of each run.
    """

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean over the runs."""
        return statistics.fmean(self.values)

    @property
    def deviation(self) -> float | None:
        """The standard deviation of a single run, estimated from all (divided by n - 1); None with one run."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    def as_json(self) -> dict[str, Any]:
        """Return mean, deviation and the values."""
        return {"mean": self.mean, "deviation": self.deviation, "values": list(self.values)}


@dataclass(frozen=True)
class Row:
    """Runs of the same components and settings, with one seed or several.

    Attributes:
        runs: by seed.
        place: among the rows in the order in which they were named, from 0.
    """

    runs: tuple[ComparedRun, ...]
    place: int = 0

    @property
    def backbone(self) -> str:
        """The backbone's name."""
        return self.runs[0].backbone

    @property
    def head(self) -> str:
        """The head's name."""
        return self.runs[0].head

    @property
    def optimizer(self) -> str:
        """The optimizer's name, and what it is built over."""
        return self.runs[0].optimizer

    @property
    def title(self) -> str:
        """The components in a phrase."""
        return f"{self.backbone} + {self.head} + {self.optimizer}"

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of its runs."""
        return tuple(run.seed for run in self.runs)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that its runs share, by dotted name."""
        return _settings(self.runs[0])

    def spread(self, figure: Callable[[ComparedRun], float | None]) -> Spread | None:
        """Return a figure over the runs; None if a run lacks it."""
        values = [figure(run) for run in self.runs]
        return Spread(tuple(v for v in values if v is not None)) if all(v is not None for v in values) else None

    @property
    def top1(self) -> Spread:
        """Share of images classified rightly."""
        return Spread(tuple(run.top1 for run in self.runs))

    @property
    def macro_f1(self) -> Spread | None:
        """F1, averaged over the classes that the split has images of."""
        return self.spread(lambda run: run.macro_f1)

    @property
    def minutes(self) -> Spread | None:
        """Training time."""
        return self.spread(lambda run: run.minutes)

    @property
    def images_per_second(self) -> Spread | None:
        """In training: the median over a run's epochs."""
        return self.spread(lambda run: run.images_per_second)

    @property
    def parameters(self) -> Mapping[str, int]:
        """Numbers of weights of "backbone" and "head"."""
        return self.runs[0].parameters


def rows_of(runs: Iterable[ComparedRun]) -> list[Row]:
    """Put runs that differ in nothing but the seed into one row, in the order in which they come."""
    found: dict[str, list[ComparedRun]] = {}
    for run in runs:
        found.setdefault(json.dumps(_settings(run), sort_keys=True, default=str), []).append(run)
    return [Row(tuple(sorted(same, key=lambda run: run.seed)), place) for place, same in enumerate(found.values())]


def different_settings(rows: Sequence[Row]) -> dict[str, list[str]]:
    """Return what is not the same in all rows beside their components, as text for each row, by dotted name.

    Options of a component are compared among the rows that have it together with the same partners: there they are all
    that tells the rows apart.
    """
    every = [row.settings for row in rows]
    names = list(dict.fromkeys(name for settings in every for name in settings))
    alike = [[(r.backbone, r.head, r.optimizer) == (o.backbone, o.head, o.optimizer) for o in rows] for r in rows]
    found: dict[str, list[str]] = {}
    for name in names:
        values = [json.dumps(settings.get(name), default=str) for settings in every]
        shared = name.partition(".")[0] in SHARED
        differs = [
            shared or any(same and values[i] != values[j] for j, same in enumerate(alike[i])) for i in range(len(rows))
        ]
        if len(set(values)) > 1 and any(differs):
            found[name] = [_text(every[i][name]) if differs[i] and name in every[i] else "" for i in range(len(rows))]
    return found


def _settings(run: ComparedRun) -> dict[str, Any]:
    """Return the settings of a run that make it what it is, by dotted name."""
    sections = {name: run.config.get(name, {}) for name in (*COMPONENTS, *SHARED)}
    kept = {
        name: {key: value for key, value in table.items() if key not in OF_A_RUN.get(name, ())}
        for name, table in sections.items()
    }
    return dict(_flat(kept))


def _flat(table: Mapping[str, Any], before: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


def _text(value: Any) -> str:
    return json.dumps(value, default=str) if isinstance(value, bool | list) else str(value)
