"""A comparison: a table for each set of images, a row for runs that differ in the seed alone."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np

from fgvc_cli.errors import UsageError, did_you_mean
from fgvc_cli.experiments.compared_run import NO_OPTIMIZER, ComparedRun
from fgvc_cli.experiments.folder import FailedRun
from fgvc_cli.experiments.statistics import Difference, compact_letters, differences, fold_differences, fold_interval
from fgvc_cli.scoring.results import EvaluationSummary
from fgvc_cli.scoring.scores import LEVEL

FORMAT = 1
COMPONENTS = ("backbone", "head", "optimizer")
SHARED = ("dataset", "train", "augment")
"""Sections of settings that belong to none of a row's components."""
IGNORED = {
    "train": {"seed", "val_seed", "val_by", "device", "workers", "strict_data", "track", "cache", "fold", "score_test"},
    "dataset": {"name", "data"},
}
"""Settings that may differ within a row: seeds, and where and how images are read. The images are compared by key."""


@dataclass(frozen=True)
class Spread:
    """A quantity over the runs of a row, one value per run; with `folds`, one per fold of that many."""

    values: tuple[float, ...]
    folds: int = 0

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Spread | None:
        """Return the spread of values; None if one is unknown."""
        known = tuple(values)
        return None if None in known else cls(known)  # type: ignore[arg-type]

    @classmethod
    def over(cls, runs: Sequence[ComparedRun], value: Callable[[ComparedRun], float | None]) -> Spread | None:
        """Return the spread of a value over runs, over folds if they have any: the mean over seeds of each fold."""
        spread = cls.of(map(value, runs))
        if spread is None or not runs[0].fold:
            return spread
        by_fold: dict[int, list[float]] = defaultdict(list)
        for run, of_run in zip(runs, spread.values, strict=True):
            by_fold[run.fold].append(of_run)
        return cls(tuple(statistics.fmean(by_fold[fold]) for fold in sorted(by_fold)), runs[0].folds)

    @property
    def mean(self) -> float:
        """The mean."""
        return statistics.fmean(self.values)

    @property
    def deviation(self) -> float | None:
        """The sample standard deviation (divided by n - 1); None for one value."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval of the mean over folds; None without folds, or with one."""
        return fold_interval(self.values, self.folds) if self.folds and len(self.values) > 1 else None

    def as_json(self) -> dict[str, Any]:
        """Return `mean`, `deviation` and `values`, over folds with `low` and `high`."""
        interval = {} if self.interval is None else dict(zip(("low", "high"), self.interval, strict=True))
        return {"mean": self.mean, "deviation": self.deviation, "values": list(self.values), **interval}


@dataclass(frozen=True)
class Row:
    """Runs of the same components and settings, with one or several seeds and, evaluated on their folds, folds.

    Attributes:
        runs: by seed and fold.
        position: in the order in which the runs were given, from 0.
        settings: that all runs share, by dotted name.
        minutes, images_per_second: of training.
        parameters: numbers of "backbone", "head" and "total".
    """

    runs: tuple[ComparedRun, ...]
    position: int
    backbone: str
    head: str
    optimizer: str
    settings: dict[str, Any]
    seeds: tuple[int, ...]
    top1: Spread
    macro_f1: Spread | None
    minutes: Spread
    images_per_second: Spread | None
    parameters: dict[str, int]

    @classmethod
    def of(cls, runs: Iterable[ComparedRun], position: int = 0) -> Row:
        """Return the row of runs that differ in the seed alone."""
        runs = tuple(sorted(runs, key=lambda run: (run.seed, run.fold)))
        first = runs[0]
        seeds = [run.seed for run in runs]
        return cls(
            runs, position, first.backbone, first.head, first.optimizer, _settings(first),
            seeds=tuple(dict.fromkeys(seeds) if first.fold else seeds),
            top1=cast(Spread, Spread.over(runs, lambda run: run.top1)),
            macro_f1=Spread.over(runs, lambda run: run.evaluation.macro_f1),
            minutes=cast(Spread, Spread.over(runs, lambda run: run.minutes)),
            images_per_second=Spread.over(runs, lambda run: run.images_per_second),
            parameters=first.parameters,
        )  # fmt: skip

    @property
    def folds(self) -> tuple[int, ...]:
        """The folds that its runs validated on and are evaluated on; empty without."""
        return tuple(sorted({run.fold for run in self.runs} - {0}))

    @property
    def title(self) -> str:
        """The names of the components."""
        return " + ".join([self.backbone, self.head, *[self.optimizer] * (self.optimizer != NO_OPTIMIZER)])

    @property
    def groups(self) -> dict[str, Spread]:
        """Top-1 at each level above the classes that the evaluations of all its runs have, lowest first."""
        taxonomies = [run.evaluation.taxonomy for run in self.runs]
        by_level = [{} if each is None else {row.level: row.top1 for row in each.levels[1:]} for each in taxonomies]
        common = [level for level in by_level[0] if all(level in of_run for of_run in by_level)]
        return {level: Spread(tuple(of_run[level] for of_run in by_level)) for level in common}

    @property
    def severity(self) -> Spread | None:
        """Severity of mistakes; None without a taxonomy or without a mistake."""
        taxonomies = (run.evaluation.taxonomy for run in self.runs)
        return Spread.of(None if each is None else each.severity for each in taxonomies)

    def as_json(self, settings: Mapping[str, str], letters: str) -> dict[str, Any]:
        """Return the JSON object of the row, with the settings in which it differs; docs/studies.md lists its keys."""
        spreads = {name: getattr(self, name) for name in ("top1", "macro_f1", "minutes", "images_per_second")}
        groups = {level: top1.as_json() for level, top1 in self.groups.items()}
        return {
            **{name: getattr(self, name) for name in COMPONENTS},
            "settings": dict(settings),
            "seeds": list(self.seeds),
            "runs": [str(run.run.path) for run in self.runs],
            **{name: None if spread is None else spread.as_json() for name, spread in spreads.items()},
            "parameters": dict(self.parameters),
            "letters": letters,
            **({"folds": list(self.folds)} if self.folds else {}),
            **({"groups": groups} if groups else {}),
            **({} if self.severity is None else {"severity": self.severity.as_json()}),
        }


def _mean_correct(row: Row) -> dict[str, float]:
    """Return the fraction of a row's seeds that classify an image correctly, by key, over all folds."""
    found: dict[str, list[bool]] = defaultdict(list)
    for run in row.runs:
        for key, right in run.correct.items():
            found[key].append(right)
    return {key: statistics.fmean(right) for key, right in found.items()}


def rows_of(runs: Sequence[ComparedRun]) -> list[Row]:
    """Group runs that differ in the seed alone into rows, in the order of their first runs."""
    found: dict[str, list[ComparedRun]] = {}
    for run, data in zip(runs, _training_data(runs), strict=True):
        found.setdefault(json.dumps([data, _settings(run)], sort_keys=True, default=str), []).append(run)
    return [Row.of(same, position) for position, same in enumerate(found.values())]


def differing_settings(rows: Sequence[Row]) -> dict[str, list[str]]:
    """Return the settings that differ between rows by dotted name, as text for each row ("" where irrelevant).

    Options of a component are compared only between rows of the same components, where they are the only difference.
    """
    names = list(dict.fromkeys(name for row in rows for name in row.settings))
    titles = [row.title for row in rows]
    found: dict[str, list[str]] = {}
    for name in names:
        values = [json.dumps(row.settings.get(name), default=str) for row in rows]
        shared = name.partition(".")[0] in SHARED
        differs = [
            shared or any(titles[j] == titles[i] and values[j] != values[i] for j in range(len(rows)))
            for i in range(len(rows))
        ]
        if len(set(values)) > 1 and any(differs):
            found[name] = [
                _value_text(row.settings[name]) if relevant and name in row.settings else ""
                for row, relevant in zip(rows, differs, strict=True)
            ]
    return found


def _training_data(runs: Sequence[ComparedRun]) -> list[str]:
    """Return for each run what identifies its training data: as precisely as all of them record it."""
    if all(run.trained_on is not None for run in runs):
        return [run.trained_on.training_digest for run in runs if run.trained_on is not None]
    return [json.dumps(dict(run.dataset_record), sort_keys=True, default=str) for run in runs]


def _data_notes(runs: Sequence[ComparedRun]) -> list[str]:
    """Return how the training data of runs differs from that of the first, and what changed while they trained."""
    notes: dict[str, list[str]] = {}
    first = runs[0].trained_on
    for run, data in zip(runs, _training_data(runs), strict=True):
        if data != _training_data(runs)[0]:
            known = first is not None and run.trained_on is not None
            differences = first.changes_to(run.trained_on) if known else ["other images"]  # type: ignore[union-attr, arg-type]
            notes.setdefault(f"Trained on other data than {runs[0].run.name}: {'; '.join(differences)}", []).append(
                run.run.name
            )
        if run.trained_on is not None and run.trained_on.changes:
            text = f"The data changed during training: {'; '.join(run.trained_on.changes)}"
            notes.setdefault(text, []).append(run.run.name)
    return [f"{text} ({', '.join(names)})." for text, names in notes.items()]


def _settings(run: ComparedRun) -> dict[str, Any]:
    """Return the settings that define the trained model, by dotted name."""
    unused = ("optimizer", "augment") if run.optimizer == NO_OPTIMIZER else ()
    sections = {name: run.config.get(name, {}) for name in (*COMPONENTS, *SHARED) if name not in unused}
    return dict(
        _flatten(
            {
                name: {key: value for key, value in table.items() if key not in IGNORED.get(name, ())}
                for name, table in sections.items()
            }
        )
    )


def _flatten(table: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _value_text(value: Any) -> str:
    return json.dumps(value, default=str) if isinstance(value, bool | list) else str(value)


@dataclass(frozen=True)
class ComparisonTable:
    """Rows that were evaluated on the same images, the best top-1 first, and the differences between each pair."""

    rows: tuple[Row, ...]
    differences: tuple[Difference, ...]

    @classmethod
    def of(cls, rows: Sequence[Row]) -> ComparisonTable:
        """Sort rows and test their differences on the images that all runs scored."""
        best_first = sorted(rows, key=lambda row: -row.top1.mean)
        if best_first[0].folds:
            by_fold = [dict(zip(row.folds, row.top1.values, strict=True)) for row in best_first]
            found = fold_differences(by_fold, best_first[0].top1.folds, list(map(_mean_correct, best_first)))
            return cls(tuple(best_first), tuple(found))
        keys = sorted(set.intersection(*(set(run.correct) for row in best_first for run in row.runs)))
        correct = [np.stack([run.correct_at(keys) for run in row.runs]) for row in best_first]
        return cls(tuple(best_first), tuple(differences(correct)))

    @property
    def evaluation(self) -> EvaluationSummary:
        """The evaluation of the first run; all have its dataset and split."""
        return self.rows[0].runs[0].evaluation

    @property
    def folds(self) -> int:
        """The number of folds of a cross-validation whose folds the runs are evaluated on; 0: on the same images."""
        return self.rows[0].top1.folds

    @cached_property
    def images(self) -> int:
        """The number of images that the runs are evaluated on, in all folds."""
        if not self.folds:
            return self.evaluation.images
        return max(len(_mean_correct(row)) for row in self.rows)

    @cached_property
    def letters(self) -> list[str]:
        """The letters of each row: rows that share one do not differ significantly."""
        return compact_letters(len(self.rows), [(d.first, d.second) for d in self.differences if d.significant])

    def gap(self, row: int) -> Difference | None:
        """Return the difference between the best row and another one; None for the best one itself."""
        return next((each for each in self.differences if each.first == 0 and each.second == row), None)

    @cached_property
    def settings(self) -> dict[str, list[str]]:
        """The settings that differ between rows; see `differing_settings`."""
        return differing_settings(self.rows)

    def settings_of(self, row: int) -> dict[str, str]:
        """Return the settings in which a row differs from others, by dotted name."""
        return {name: texts[row] for name, texts in self.settings.items() if texts[row]}

    @cached_property
    def notes(self) -> list[str]:
        """Reasons why the rows may not be comparable."""
        runs = [run for row in self.rows for run in row.runs]
        notes = list(dict.fromkeys(note for run in runs for note in run.notes))
        if shared := [name for name in self.settings if name.partition(".")[0] in SHARED]:
            notes.append(f"The rows differ in more than their components: {', '.join(shared)}.")
        for what, values in (
            ("device", {run.device for run in runs}),
            ("precision", {run.evaluation.precision for run in runs}),
            ("fgvc version", {run.version for run in runs}),
        ):
            if len(values) > 1:
                costs = ": minutes and images/s are not comparable" if what == "device" else ""
                notes.append(f"The runs differ in {what} ({', '.join(sorted(values))}){costs}.")
        if seen := _differing_values([run.evaluation.preprocessing or {} for run in runs]):
            notes.append(f"The runs differ in preprocessing: {', '.join(seen)}.")
        notes += _data_notes(runs)
        if len(folders := sorted({run.data for run in runs})) > 1:
            notes.append(f"Images are matched by name between {' and '.join(folders)}.")
        folds = set(range(1, self.folds + 1))
        missing = [f"{row.title} ({', '.join(map(str, sorted(folds - set(row.folds))))})"
                   for row in self.rows if folds - set(row.folds)]  # fmt: skip
        if missing:
            notes.append(f"Folds are missing: {'; '.join(missing)}.")
        if any(len(set(row.seeds)) < len(row.seeds) for row in self.rows):
            notes.append("Runs of one row have the same seed: their spread is not the spread over seeds.")
        if len({len(row.seeds) for row in self.rows}) > 1:
            notes.append("The rows have different numbers of seeds.")
        return notes

    @property
    def standard_error(self) -> float:
        """Standard error of a top-1 of 50 % on this number of images, a fraction; that of any other top-1 is less."""
        return float(0.5 / np.sqrt(max(1, self.images)))

    def as_json(self) -> dict[str, Any]:
        """Return the JSON object of the table; docs/studies.md lists its keys."""
        titles = [row.title for row in self.rows]
        return {
            **{name: getattr(self.evaluation, name) for name in ("dataset", "split", "origin", "images", "classes")},
            **({"folds": self.folds, "images": self.images} if self.folds else {}),
            "notes": self.notes,
            "level": LEVEL,
            "rows": [row.as_json(self.settings_of(i), self.letters[i]) for i, row in enumerate(self.rows)],
            "differences": [
                {**asdict(each), "clear": each.significant, "first": titles[each.first], "second": titles[each.second],
                 "first_row": each.first, "second_row": each.second}
                for each in self.differences
            ],
        }  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """Compared runs.

    Attributes:
        tables: one for each set of images, the one with the most rows first; not comparable with each other.
        failed: runs of a study that failed.
        unfinished: names of runs of a study that were interrupted.
        notes: how the training data of the tables differs, where their images are the same.
    """

    tables: tuple[ComparisonTable, ...]
    failed: tuple[FailedRun, ...] = ()
    unfinished: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def evaluated_on(self) -> str:
        """What the tables differ in, of what their runs were evaluated on: "images", "classes", or "" if in nothing."""
        firsts = [table.rows[0].runs[0] for table in self.tables]
        keys = [sorted([*run.correct, *run.evaluation.failures]) for run in firsts]
        images = {(run.dataset, run.evaluation.split, *of) for run, of in zip(firsts, keys, strict=True)}
        classes = {tuple(sorted(row.name for row in run.evaluation.per_class)) for run in firsts}
        return "images" if len(images) > 1 else "classes" if len(classes) > 1 else ""

    def as_json(self) -> dict[str, Any]:
        """Return the JSON document; docs/studies.md lists its keys."""
        return {
            "format": FORMAT,
            "sections": [table.as_json() for table in self.tables],
            "failed": [each.as_json() for each in self.failed],
            "unfinished": list(self.unfinished),
            "notes": list(self.notes),
        }


def compare(
    runs: Sequence[ComparedRun],
    failed: Sequence[FailedRun] = (),
    unfinished: Sequence[str] = (),
    allow_changed_data: bool = False,
) -> Comparison:
    """Group runs into rows and tables and test their differences for significance.

    Runs trained on different images are in different tables, unless `allow_changed_data`; a note says how they differ.
    """
    by_images: dict[tuple[str, ...], list[ComparedRun]] = {}
    for run, data in zip(runs, _training_data(runs), strict=True):
        trained_on = "" if allow_changed_data else data
        by_images.setdefault((run.dataset, run.evaluation.split, run.images_id, trained_on), []).append(run)
    tables = sorted((ComparisonTable.of(rows_of(same)) for same in by_images.values()), key=lambda t: -len(t.rows))
    evaluated: dict[tuple[str, ...], list[ComparedRun]] = {}
    for table in tables:
        first = table.rows[0].runs[0]
        evaluated.setdefault((first.dataset, first.evaluation.split, first.images_id), []).append(first)
    notes = [note for firsts in evaluated.values() if len(firsts) > 1 for note in _data_notes(firsts)]
    return Comparison(tuple(tables), tuple(failed), tuple(unfinished), tuple(notes))


SORTS: Mapping[str, Callable[[Row], float]] = {
    "top1": lambda row: -row.top1.mean,
    "f1": lambda row: _descending(row.macro_f1),
    "parameters": lambda row: row.parameters["backbone"] + row.parameters["head"],
    "minutes": lambda row: row.minutes.mean,
    "speed": lambda row: _descending(row.images_per_second),
    "given": lambda row: row.position,
}
"""Sort keys of rows, the best first; "given": the order in which the runs were given."""
GROUPS = ("none", *COMPONENTS)


def in_order(rows: Sequence[Row], sort: str) -> list[int]:
    """Return the indices of rows in a sort order; ties keep their order.

    Raises:
        UsageError: `sort` is not in `SORTS`.
    """
    if sort not in SORTS:
        raise UsageError(f"`sort={sort}`: unknown order.{did_you_mean(sort, SORTS)} Orders: {', '.join(SORTS)}.")
    return sorted(range(len(rows)), key=lambda i: SORTS[sort](rows[i]))


def groups_of(rows: Sequence[Row], group: str) -> list[str]:
    """Return the title of the group of each row ("" without groups).

    Raises:
        UsageError: `group` is not in `GROUPS`.
    """
    if group not in GROUPS:
        raise UsageError(f"`group={group}`: unknown group.{did_you_mean(group, GROUPS)} Groups: {', '.join(GROUPS)}.")
    return ["" if group == "none" else str(getattr(row, group)) for row in rows]


def _differing_values(tables: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the values that differ between tables, as "image_size (64, 128)"; missing values do not count."""
    values = {
        name: list(dict.fromkeys(str(each[name]) for each in tables if name in each))
        for name in dict.fromkeys(name for each in tables for name in each)
    }
    return [f"{name} ({', '.join(texts)})" for name, texts in values.items() if len(texts) > 1]


def _descending(spread: Spread | None) -> float:
    """Return a sort key: the largest mean first, unknown ones last."""
    return float("inf") if spread is None else -spread.mean
