"""The sections of a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from markupsafe import Markup

from fgvc_cli.experiments.compare import labels
from fgvc_cli.experiments.comparison import Row
from fgvc_cli.experiments.comparison import Section as Compared
from fgvc_cli.experiments.study import STUDY_FILE
from fgvc_cli.experiments.text import (
    behind_text,
    images_text,
    meanings,
    minutes_text,
    parameters_text,
    seeds_text,
    settings_text,
    share_text,
    speed_text,
)
from fgvc_cli.formatting import quoted
from fgvc_cli.report.charts import COLORS, Line, LineChart, legend
from fgvc_cli.report.page import Section
from fgvc_cli.report.run_report import StudyReport
from fgvc_cli.report.run_sections import NAMES
from fgvc_cli.report.templating import fragment, unbroken
from fgvc_cli.runs.results import EpochMetrics
from fgvc_cli.viz import series

DRAWN = 2 * COLORS
"""Rows that are drawn, the best ones: as many as colors and strokes keep apart."""
PANELS = (
    ("val", "top1", "Validation top-1 accuracy, %", 100.0),
    ("val", "loss", "Validation loss", 1.0),
    ("train", "top1", "Training top-1 accuracy, %", 100.0),
    ("train", "loss", "Training loss", 1.0),
)


@dataclass(frozen=True)
class _Line:
    """A line of the table.

    Attributes:
        title: the combination.
        anchor: of its first run's section.
        cells: texts by column; an empty one says nothing.
    """

    title: str
    anchor: str
    cells: Mapping[str, str]


def comparison_section(report: StudyReport, place: int) -> Section:
    """Return the table of runs that were scored on the same images, accuracy against time, and the curves.

    Args:
        report: of the study.
        place: of the section in the comparison.
    """
    compared = report.comparison.sections[place]
    number = "" if place == 0 else f"-{place + 1}"
    several = len(report.comparison.sections) > 1
    title = f"Compared on {compared.evaluation.split} of {_source(compared)}" if several else "Comparison"
    lines = [_line(report, compared, i) for i in range(len(compared.rows))]
    columns = [name for name in lines[0].cells if any(line.cells[name] for line in lines)]
    body = fragment(
        "comparison.html",
        images=images_text(compared),
        lines=lines,
        columns=columns,
        notes=[*compared.notes, *meanings(compared)],
    )
    parts = [_costs(compared, number), _curves(report, compared, number)]
    return Section(f"comparison{number}", title, body, [part for part in parts if part is not None])


def _line(report: StudyReport, compared: Compared, place: int) -> _Line:
    row = compared.rows[place]
    cells = {
        "top-1": share_text(row.top1),
        "behind": behind_text(compared, place),
        "alike": compared.letters[place] if len(compared.rows) > 1 else "",
        "macro F1": share_text(row.macro_f1),
        "parameters": parameters_text(row),
        "minutes": minutes_text(row),
        "images/s": speed_text(row),
        "seeds": seeds_text(row),
        "settings": settings_text(compared, place),
    }
    anchor = f"run-{report.number_of(row.runs[0].run)}"
    return _Line(row.title, anchor, {name: unbroken(text) for name, text in cells.items()})


def _costs(compared: Compared, number: str) -> Section | None:
    """Return accuracy against training time, a point a run; None where nothing took any time."""
    drawn = [
        (i, row) for i, row in enumerate(compared.rows[:DRAWN]) if row.minutes is not None and any(row.minutes.values)
    ]
    if not drawn:
        return None
    names = labels(compared)
    lines = [Line(names[i], sorted(_points(row)), i % COLORS + 1, dashed=i >= COLORS, joined=False) for i, row in drawn]
    said = "; ".join(f"{line.name}: {_pairs(line.points)}" for line in lines)
    title = f"{str(compared.evaluation.split).capitalize()} top-1 accuracy, %"
    chart = LineChart(
        title, f"{title} against minutes. {said}.", lines, "minutes of training, a point a run", whole=False
    )
    return Section(f"costs{number}", "Accuracy against time", chart.markup())


def _points(row: Row) -> list[tuple[float, float]]:
    assert row.minutes is not None
    return [(minutes, 100 * top1) for minutes, top1 in zip(row.minutes.values, row.top1.values, strict=True)]


def _pairs(points: Sequence[tuple[float, float]]) -> str:
    return ", ".join(f"{y:.1f} % after {x:.1f}" for x, y in points)


def _curves(report: StudyReport, compared: Compared, number: str) -> Section | None:
    """Return the curves of all rows over each other, each the mean over its seeds; None without any epoch."""
    rows, names = compared.rows[:DRAWN], labels(compared)
    metrics = [[report.epochs_of(run.run) for run in row.runs] for row in rows]
    charts = []
    for part, name, title, factor in PANELS:
        lines = [
            Line(names[i], points, i % COLORS + 1, dashed=i >= COLORS)
            for i, of_runs in enumerate(metrics)
            if (points := _mean(of_runs, part, name, factor))
        ]
        if lines:
            ends = "; ".join(f"{line.name}: {line.points[-1][1]:.3g} at the end" for line in lines)
            said = f"{title} by epoch. {ends}."
            charts.append(LineChart(title, said, lines, from_zero=name == "top1", legend=False))
    if not charts:
        return None
    body = fragment(
        "overlaid.html",
        charts=charts,
        legend=legend(list({line.name: line for chart in charts for line in chart.lines}.values())),
        left_out=len(compared.rows) - len(rows),
        several=any(len(row.runs) > 1 for row in rows),
    )
    return Section(f"curves{number}", "Learning curves over each other", body)


def _mean(of_runs: Sequence[Sequence[EpochMetrics]], part: str, name: str, factor: float) -> list[tuple[float, float]]:
    """Return (epoch, mean over the runs that have it)."""
    found: dict[float, list[float]] = {}
    for lines in of_runs:
        for epoch, value in zip(*series(lines, part, name), strict=True):
            found.setdefault(float(epoch), []).append(factor * float(value))
    return [(epoch, float(np.mean(values))) for epoch, values in sorted(found.items())]


def _source(compared: Compared) -> str:
    dataset = compared.evaluation.dataset
    return Path(dataset["data"]).name if dataset["data"] else str(dataset["name"])


def study_lede(report: StudyReport) -> Markup:
    """Return which combination is ahead, whether clearly, and what is missing."""
    first = report.comparison.sections[0]
    behind = [first.behind(place) for place in range(1, len(first.rows))]
    split = str(first.evaluation.split)
    return fragment(
        "study_lede.html",
        best=first.rows[0].title,
        top1=unbroken(share_text(first.rows[0].top1)),
        images=first.evaluation.images,
        split=NAMES.get(split, f"“{split}”"),
        lone=len(first.rows) == 1,
        others=len(behind),
        alike=sum(difference is not None and not difference.clear for difference in behind),
        combinations=sum(len(section.rows) for section in report.comparison.sections),
        runs=len(report.runs),
        sections=len(report.comparison.sections),
        missing=missing(report),
    )


def missing(report: StudyReport) -> list[str]:
    """Return what the study has not, and what the sections of its runs lack, a sentence each."""
    failed = [
        f"{each.backbone} + {each.head} + {each.optimizer}, seed {each.seed}, failed: {each.reason}"
        for each in report.comparison.failed
    ]
    unfinished = [f"{name} is not finished." for name in report.comparison.unfinished]
    lacking = [f"{run.recorded.run.name}: {sentence}" for run in report.runs for sentence in run.missing]
    return [*failed, *unfinished, *lacking]


def study_reproducing_section(report: StudyReport) -> Section:
    """Return the commands and `study.toml`."""
    folder = quoted(str(report.folder))
    commands = [
        ("train it again", f"fgvc sweep --config {quoted(str(report.folder / STUDY_FILE))}"),
        ("go on with it, after adding cells or seeds to its file", f"fgvc sweep --resume {folder}"),
        ("compare its runs again", f"fgvc compare {folder}"),
        ("make this page again", f"fgvc report {folder}"),
    ]
    body = fragment("study_reproducing.html", commands=commands, text=report.text)
    return Section("reproduce", "How to reproduce it", body)
