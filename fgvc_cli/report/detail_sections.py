"""Sections of a run: learning curves, classes, confusion and example images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from fgvc_cli.report.artifacts import RunRecord
from fgvc_cli.report.charts import Line, LineChart, Mark, class_chart
from fgvc_cli.report.confusion import TABLE_CLASSES, confusion_image, confusion_table
from fgvc_cli.report.examples import Examples
from fgvc_cli.report.page import Section, count_text, fragment, percent_text
from fgvc_cli.report.pictures import heat_scale
from fgvc_cli.report.predictions import SplitScores, confused
from fgvc_cli.runs.results import ClassMetrics, EpochMetrics
from fgvc_cli.scoring.taxonomy import TaxonomyMetrics
from fgvc_cli.viz import best_epoch, series

MAX_EPOCHS = 60
"""Maximum number of rows of the table of epochs: evenly spaced, with the best and the last epoch."""
PARTS = {"train": "training (augmented images)", "val": "validation"}


def curves_section(record: RunRecord, anchor: str) -> Section:
    """Return the learning curves, as charts and as a table."""
    epochs = record.epochs
    best = best_epoch(epochs)
    charts = [chart for name in ("loss", "top1") if (chart := _chart(epochs, name, best)) is not None]
    body = fragment("curves.html", charts=charts, rows=_rows(epochs, best), best=best, epochs=len(epochs))
    return Section(f"{anchor}curves", "Learning curves", body)


def _chart(epochs: Sequence[EpochMetrics], name: str, best: int | None) -> LineChart | None:
    """Return the chart of a metric; None if no epoch has it, as with heads without scores in training."""
    factor = 100.0 if name == "top1" else 1.0
    lines = []
    for color, (part, label) in enumerate(PARTS.items(), 1):
        x, y = series(epochs, part, name)
        if len(x):
            points = list(zip(x.tolist(), (factor * y).tolist(), strict=True))
            lines.append(Line(label, points, color, dashed=part == "train"))
    if not lines:
        return None
    validated = dict(next((line.points for line in lines if not line.dashed), ()))
    mark = Mark(best, validated[best], f"best epoch: {best}") if best is not None and best in validated else None
    title = "Top-1 accuracy, %" if name == "top1" else "Loss (cross entropy, nats)"
    description = "; ".join(f"{line.name}: {_describe(line.points, name)}" for line in lines)
    return LineChart(title, f"{title} by epoch. {description}.", lines, from_zero=name == "top1", mark=mark)


def _describe(points: Sequence[tuple[float, float]], name: str) -> str:
    digits = 1 if name == "top1" else 3
    (first, start), (last, end) = points[0], points[-1]
    low, high = (f(y for _, y in points) for f in (min, max))
    return (
        f"from {start:.{digits}f} in epoch {first:.0f} to {end:.{digits}f} in epoch {last:.0f}, between "
        f"{low:.{digits}f} and {high:.{digits}f}"
    )


def _rows(epochs: Sequence[EpochMetrics], best: int | None) -> list[list[str]]:
    """Return the cells of the table of epochs."""
    kept = set(np.linspace(0, len(epochs) - 1, min(len(epochs), MAX_EPOCHS)).astype(int).tolist())
    rows = []
    for i, line in enumerate(epochs):
        if i in kept or line.epoch == best:
            losses = [line.train.loss, None if line.val is None else line.val.loss]
            accuracies = [line.train.top1, None if line.val is None else line.val.top1]
            texts = ["–" if loss is None else f"{loss:.3f}" for loss in losses]
            rate = f"{line.rates['backbone']:.2g}" if line.rates else "–"
            seconds = f"{line.seconds:.0f}"
            rows.append([str(line.epoch), *texts, *map(percent_text, accuracies), rate, seconds])
    return rows


ALL_SHOWN = 24
"""Up to this number of classes, all are shown."""
EXTREMES = 10
"""Number of worst and of best classes shown where there are more."""
MAX_CLASSES = 400
"""Maximum length of the full list, which bounds the size of the page; `per_class.csv` has all classes."""


@dataclass(frozen=True)
class ClassTable:
    """A table of classes with its caption."""

    title: str
    rows: Sequence[ClassMetrics]


def classes_section(scores: SplitScores, anchor: str) -> Section:
    """Return the accuracy of each class; classes without images are listed separately."""
    per_class = scores.summary.per_class
    rows = sorted((row for row in per_class if row.images), key=lambda row: (row.top1 or 0.0, row.f1 or 0.0))
    chart, rest = Markup(), None
    if len(rows) <= ALL_SHOWN:
        tables = [ClassTable("All classes, worst first", rows)]
    else:
        tables = [
            ClassTable(f"The worst {EXTREMES}", rows[:EXTREMES]),
            ClassTable(f"The best {EXTREMES}", rows[: -EXTREMES - 1 : -1]),
        ]
        accuracies = [row.top1 or 0.0 for row in rows]
        chart = class_chart(accuracies, sum(accuracies) / len(accuracies))
        title = "All classes, worst first" if len(rows) <= MAX_CLASSES else f"The worst {MAX_CLASSES} classes"
        rest = ClassTable(title, rows[:MAX_CLASSES])
    body = fragment(
        "classes.html",
        chart=chart,
        tables=tables,
        rest=rest,
        present=len(rows),
        listed=min(len(rows), MAX_CLASSES),
        absent=[row.name for row in per_class if not row.images],
    )
    return Section(f"{anchor}classes", "Accuracy by class", body, subtitle=f"{count_text(len(rows))} classes")


def taxonomy_section(metrics: TaxonomyMetrics, anchor: str) -> Section:
    """Return the accuracy of each level of a taxonomy, the severity of mistakes, and the names given when sure."""
    body = fragment("taxonomy.html", metrics=metrics)
    subtitle = ", ".join(f"{row.level} {percent_text(row.top1)}" for row in metrics.levels[1:])
    return Section(f"{anchor}taxonomy", "Groups of classes", body, subtitle=subtitle)


def confusion_section(scores: SplitScores, anchor: str) -> Section:
    """Return the confusion matrix and the most confused pairs."""
    matrix, names = confused(scores.predictions), scores.class_names
    few = len(names) <= TABLE_CLASSES
    drawn = confusion_table(matrix, names) if few else confusion_image(matrix, names)
    wrong = sum(images for (true, predicted), images in matrix.items() if true != predicted)
    body = fragment("confusion.html", matrix=drawn, pairs=scores.summary.most_confused, few=few)
    subtitle = f"{count_text(wrong)} {'mistake' if wrong == 1 else 'mistakes'}"
    return Section(f"{anchor}confusion", "Confusion", body, subtitle=subtitle)


def mistakes_section(examples: Examples, anchor: str) -> Section:
    """Return the most confident mistakes with the saliency maps of both classes."""
    body = fragment("mistakes.html", examples=examples, scale=heat_scale())
    return Section(f"{anchor}mistakes", "Most confident mistakes", body)


def occlusion_section(examples: Examples, anchor: str) -> Section:
    """Return the panels of the occlusion test."""
    survived = [bool(example.survived) for example in examples.panels]
    body = fragment("occlusion.html", examples=examples, scale=heat_scale())
    subtitle = f"the decision survives in {sum(survived)} of {len(survived)} images" if survived else ""
    return Section(f"{anchor}occlusion", "Occlusion test", body, subtitle=subtitle)
