"""The sections of a study: comparison, costs and learning curves of its combinations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from markupsafe import Markup

from fgvc_cli.experiments.comparison import ComparisonTable
from fgvc_cli.experiments.comparison_files import PANELS
from fgvc_cli.experiments.text import cells, images_text, notes, percent_text, row_labels
from fgvc_cli.formatting import quoted
from fgvc_cli.report.charts import COLORS, Line, LineChart, legend
from fgvc_cli.report.page import Section, fragment, unbroken
from fgvc_cli.report.run_report import StudyReport
from fgvc_cli.report.run_sections import split_text
from fgvc_cli.runs.folder import STUDY_FILE
from fgvc_cli.runs.results import EpochMetrics
from fgvc_cli.viz import series

MAX_LINES = 2 * COLORS
"""Maximum number of rows that are drawn, the best ones: colors and strokes distinguish no more."""


def comparison_section(report: StudyReport, index: int) -> Section:
    """Return table `index` of the comparison, accuracy against training time, and the learning curves."""
    table = report.comparison.tables[index]
    suffix = "" if index == 0 else f"-{index + 1}"
    title = "Comparison"
    if len(report.comparison.tables) > 1:
        dataset = table.evaluation.dataset
        source = Path(dataset["data"]).name if dataset["data"] else dataset["name"]
        title = f"Comparison on {table.evaluation.split} of {source}"
    rows = [
        (f"run-{report.number_of(row.runs[0].run)}", row.title, cells(table, i)) for i, row in enumerate(table.rows)
    ]
    body = fragment(
        "comparison.html",
        images=images_text(table),
        rows=[(anchor, name, {k: unbroken(text) for k, text in texts.items()}) for anchor, name, texts in rows],
        columns=[column for column in rows[0][2] if any(texts[column] for _, _, texts in rows)],
        notes=notes(table),
    )
    parts = [_costs_section(table, suffix), _curves_section(report, table, suffix)]
    return Section(f"comparison{suffix}", title, body, [part for part in parts if part is not None])


def _costs_section(table: ComparisonTable, suffix: str) -> Section | None:
    """Return accuracy against training time, a point per run; None if no run was trained."""
    lines, labels = [], row_labels(table)
    for i, row in enumerate(table.rows[:MAX_LINES]):
        if any(row.minutes.values):
            points = sorted((m, 100 * top1) for m, top1 in zip(row.minutes.values, row.top1.values, strict=True))
            lines.append(_line(labels[i], points, i, joined=False))
    if not lines:
        return None
    points_text = {line.name: ", ".join(f"{y:.1f} % after {x:.1f}" for x, y in line.points) for line in lines}
    title = f"{table.evaluation.split.capitalize()} top-1 accuracy, %"
    description = f"{title} against minutes. {'; '.join(f'{name}: {text}' for name, text in points_text.items())}."
    chart = LineChart(title, description, lines, "minutes of training, one point per run", integers=False)
    return Section(f"costs{suffix}", "Accuracy against training time", chart.markup())


def _curves_section(report: StudyReport, table: ComparisonTable, suffix: str) -> Section | None:
    """Return the learning curves of all rows, each the mean over its seeds; None without epochs."""
    rows, labels = table.rows[:MAX_LINES], row_labels(table)
    metrics = [[report.epochs_of(run.run) for run in row.runs] for row in rows]
    charts = []
    for part, name, title, factor in PANELS:
        lines = [
            _line(labels[i], points, i)
            for i, of_runs in enumerate(metrics)
            if (points := _mean_curve(of_runs, part, name, factor))
        ]
        if lines:
            ends = "; ".join(f"{line.name}: {line.points[-1][1]:.3g} at the end" for line in lines)
            description = f"{title} by epoch. {ends}."
            charts.append(LineChart(title, description, lines, from_zero=name == "top1", legend=False))
    if not charts:
        return None
    body = fragment(
        "study_curves.html",
        charts=charts,
        legend=legend(list({line.name: line for chart in charts for line in chart.lines}.values())),
        hidden=len(table.rows) - len(rows),
        several=any(len(row.runs) > 1 for row in rows),
    )
    return Section(f"curves{suffix}", "Learning curves", body)


def _line(name: str, points: Sequence[tuple[float, float]], number: int, joined: bool = True) -> Line:
    return Line(name, points, number % COLORS + 1, dashed=number >= COLORS, joined=joined)


def _mean_curve(
    of_runs: Sequence[Sequence[EpochMetrics]], part: str, name: str, factor: float
) -> list[tuple[float, float]]:
    """Return (epoch, mean over the runs that have the epoch)."""
    found: dict[float, list[float]] = {}
    for lines in of_runs:
        for epoch, value in zip(*series(lines, part, name), strict=True):
            found.setdefault(float(epoch), []).append(factor * float(value))
    return [(epoch, float(np.mean(values))) for epoch, values in sorted(found.items())]


def study_lede(report: StudyReport) -> Markup:
    """Return the best combination, whether it differs significantly from the others, and what is missing."""
    tables = report.comparison.tables
    first = tables[0]
    gaps = [first.gap(i) for i in range(1, len(first.rows))]
    return fragment(
        "study_lede.html",
        best=first.rows[0].title,
        top1=unbroken(percent_text(first.rows[0].top1)),
        images=first.images,
        split=split_text(first.evaluation.split),
        others=len(gaps),
        close=sum(gap is not None and not gap.significant for gap in gaps),
        combinations=sum(len(table.rows) for table in tables),
        runs=len(report.runs),
        tables=len(tables),
        missing=[
            *(f"{failed.title}, failed: {failed.reason}" for failed in report.comparison.failed),
            *(f"{name} is not finished." for name in report.comparison.unfinished),
            *(f"{run.record.run.name}: {sentence}" for run in report.runs for sentence in run.missing),
        ],
    )


def study_reproducing_section(report: StudyReport) -> Section:
    """Return the commands and the study file."""
    folder = quoted(str(report.folder))
    commands = [
        ("train", f"fgvc sweep --config {quoted(str(report.folder / STUDY_FILE))}"),
        ("resume, also after adding cells or seeds to the study file", f"fgvc sweep --resume {folder}"),
        ("compare", f"fgvc compare {folder}"),
        ("report", f"fgvc report {folder}"),
    ]
    body = fragment("reproducing.html", commands=commands, file=STUDY_FILE, text=report.text, versions={})
    return Section("reproduce", "How to reproduce it", body)
