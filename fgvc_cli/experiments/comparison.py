"""A comparison: rows by seed, sections of the same images, significant differences."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from fgvc_cli.errors import UsageError, did_you_mean
from fgvc_cli.experiments.compared_run import ComparedRun
from fgvc_cli.experiments.folder import FailedRun
from fgvc_cli.experiments.statistics import Difference, differences, letters
from fgvc_cli.scoring.metrics import LEVEL
from fgvc_cli.scoring.results import EvaluationSummary

COMPONENTS = ("backbone", "head", "optimizer")
SHARED = ("dataset", "train", "augment")
"""Sections of settings that belong to no one of a row's components."""
OF_A_RUN = {
    "train": {"seed", "val_seed", "device", "workers", "strict_data", "track", "cache"},
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


FORMAT = 1

SORTS: Mapping[str, Callable[[Row], tuple[float, ...]]] = {
    "top1": lambda row: (-row.top1.mean,),
    "f1": lambda row: (_descending(row.macro_f1),),
    "parameters": lambda row: (float(sum(row.parameters[part] for part in ("backbone", "head"))),),
    "minutes": lambda row: (float("inf") if row.minutes is None else row.minutes.mean,),
    "speed": lambda row: (_descending(row.images_per_second),),
    "given": lambda row: (float(row.place),),
}
"""What rows can be sorted by, the best first; "given": as they were named."""
GROUPS = ("none", "backbone", "head", "optimizer")


@dataclass(frozen=True)
class Section:
    """Rows that were evaluated on the same images.

    Attributes:
        rows: the best top-1 first.
        differences: between each two of them.
    """

    rows: tuple[Row, ...]
    differences: tuple[Difference, ...]

    @property
    def evaluation(self) -> EvaluationSummary:
        """The evaluation of the first run, which has the split and dataset of all."""
        return self.rows[0].runs[0].evaluation

    @cached_property
    def letters(self) -> list[str]:
        """For each row: rows that share a letter do not clearly differ."""
        return letters(len(self.rows), [(each.first, each.second) for each in self.differences if each.clear])

    def behind(self, row: int) -> Difference | None:
        """Return how far the best row is ahead of another one."""
        return next((each for each in self.differences if each.first == 0 and each.second == row), None)

    @cached_property
    def settings(self) -> dict[str, list[str]]:
        """What is not the same in all rows beside their components, as text for each row, by dotted name."""
        return different_settings(self.rows)

    @cached_property
    def notes(self) -> list[str]:
        """What a person should know before comparing these rows."""
        runs = [run for row in self.rows for run in row.runs]
        notes = list(dict.fromkeys(note for run in runs for note in run.notes))
        if shared := [name for name in self.settings if name.partition(".")[0] in ("train", "augment", "dataset")]:
            notes.append(f"The rows differ in more than their components: {', '.join(shared)}.")
        for what, values in (
            ("device", {run.device for run in runs}),
            ("precision", {run.precision for run in runs}),
            ("version of fgvc", {run.version for run in runs}),
        ):
            if len(values) > 1:
                then = ": minutes and images a second do not compare" if what == "device" else ""
                notes.append(f"Not every run had the same {what} ({', '.join(sorted(values))}){then}.")
        if seen := _different([run.evaluation.preprocessing or {} for run in runs]):
            notes.append(f"Not every run saw its images alike: {', '.join(seen)}.")
        if len(folders := sorted({str(run.evaluation.dataset["data"]) for run in runs})) > 1:
            notes.append(f"Images of one name are taken for one image, and come from {' and '.join(folders)}.")
        if any(len(set(row.seeds)) < len(row.seeds) for row in self.rows):
            notes.append("Runs of one row have the same seed: their spread is not that of seeds.")
        if any(len(row.runs) < max(len(other.runs) for other in self.rows) for row in self.rows):
            notes.append("Not every row has the same number of seeds.")
        return notes

    @property
    def standard_error(self) -> float:
        """What sampling so many test images leaves uncertain in a top-1 of a half, a fraction; others have less."""
        return float(0.5 / np.sqrt(max(1, self.evaluation.images)))


@dataclass(frozen=True)
class Comparison:
    """Runs beside each other.

    Attributes:
        sections: one for each set of images, the one with the most rows first; across them nothing is ranked.
        failed: runs of a study that cannot be trained.
        unfinished: names of runs of a study that were interrupted.
    """

    sections: tuple[Section, ...]
    failed: tuple[FailedRun, ...] = ()
    unfinished: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the JSON document; docs/studies.md has its keys."""
        return {
            "format": FORMAT,
            "sections": [_section_json(section) for section in self.sections],
            "failed": [vars(each) for each in self.failed],
            "unfinished": list(self.unfinished),
        }


def compare(
    runs: Sequence[ComparedRun], failed: Sequence[FailedRun] = (), unfinished: Sequence[str] = ()
) -> Comparison:
    """Put runs into rows and rows into sections, and find out which differences are clear.

    Args:
        runs: with their evaluations.
        failed, unfinished: what else a study has.
    """
    sections: dict[tuple[str, ...], list[ComparedRun]] = {}
    for run in runs:
        sections.setdefault((*run.source, run.images), []).append(run)
    made = [_section(rows_of(same)) for same in sections.values()]
    return Comparison(tuple(sorted(made, key=lambda section: -len(section.rows))), tuple(failed), tuple(unfinished))


def in_order(rows: Sequence[Row], sort: str) -> list[int]:
    """Return the places of rows in the order that a person asked for; equals stay as they are.

    Raises:
        UsageError: they cannot be sorted by that.
    """
    if sort not in SORTS:
        raise UsageError(f"--sort {sort}: no such order.{did_you_mean(sort, SORTS)} Orders: {', '.join(SORTS)}.")
    return sorted(range(len(rows)), key=lambda place: SORTS[sort](rows[place]))


def groups_of(rows: Sequence[Row], group: str) -> list[str]:
    """Return the title of the group that each row is in ("": no groups).

    Raises:
        UsageError: there are no such groups.
    """
    if group not in GROUPS:
        raise UsageError(f"--group {group}: no such groups.{did_you_mean(group, GROUPS)} Groups: {', '.join(GROUPS)}.")
    return ["" if group == "none" else str(getattr(row, group)) for row in rows]


def _section(rows: Sequence[Row]) -> Section:
    best_first = sorted(rows, key=lambda row: -row.top1.mean)
    keys = sorted(set.intersection(*(set(run.correct) for row in best_first for run in row.runs)))
    correct = [np.stack([run.correct_at(keys) for run in row.runs]) for row in best_first]
    return Section(tuple(best_first), tuple(differences(correct)))


def _different(preprocessing: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what is not the same, as "image_size (64, 128)"; what is not recorded says nothing."""
    names = dict.fromkeys(name for each in preprocessing for name in each)
    values = {name: list(dict.fromkeys(str(each[name]) for each in preprocessing if name in each)) for name in names}
    return [f"{name} ({', '.join(texts)})" for name, texts in values.items() if len(texts) > 1]


def _descending(spread: Spread | None) -> float:
    """Return what sorts the greatest mean first, and what is not known last."""
    return float("inf") if spread is None else -spread.mean


def _section_json(section: Section) -> dict[str, Any]:
    evaluation = section.evaluation
    return {
        "dataset": evaluation.dataset,
        "split": evaluation.split,
        "origin": evaluation.origin,
        "images": evaluation.images,
        "classes": evaluation.classes,
        "notes": section.notes,
        "level": LEVEL,
        "rows": [_row_json(section, place) for place in range(len(section.rows))],
        "differences": [
            {**vars(each), "clear": each.clear, "first": section.rows[each.first].title,
             "second": section.rows[each.second].title, "first_row": each.first, "second_row": each.second}
            for each in section.differences
        ],
    }  # fmt: skip


def _row_json(section: Section, place: int) -> dict[str, Any]:
    row = section.rows[place]
    spreads = {
        "top1": row.top1,
        "macro_f1": row.macro_f1,
        "minutes": row.minutes,
        "images_per_second": row.images_per_second,
    }
    return {
        "backbone": row.backbone,
        "head": row.head,
        "optimizer": row.optimizer,
        "settings": {name: texts[place] for name, texts in section.settings.items() if texts[place]},
        "seeds": list(row.seeds),
        "runs": [str(run.run.path) for run in row.runs],
        **{name: None if spread is None else spread.as_json() for name, spread in spreads.items()},
        "parameters": dict(row.parameters),
        "letters": section.letters[place],
    }
