"""The sections of a run on its learning curves, classes, confusions and images."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from fgvc_cli.explaining.overlays import color_scale
from fgvc_cli.report.artifacts import Recorded
from fgvc_cli.report.charts import Line, LineChart, Mark, skyline
from fgvc_cli.report.confusion_chart import COUNTED_CLASSES, Confused, confusion_picture, confusion_table
from fgvc_cli.report.examples import Examples
from fgvc_cli.report.page import Section
from fgvc_cli.report.pictures import Picture
from fgvc_cli.report.predictions import Scored, confused
from fgvc_cli.report.templating import count, fragment, share
from fgvc_cli.runs.results import ClassMetrics, EpochMetrics
from fgvc_cli.viz import best_epoch, series

EPOCHS_LISTED = 60
"""Epochs that the table below the curves has at most, evenly apart, with the best one and the last."""
PARTS = {"train": "training (augmented images)", "val": "validation"}


def curves_section(recorded: Recorded, anchor: str) -> Section:
    """Return the curves, and their figures as a table; of a run without epochs, a sentence."""
    epochs = recorded.epochs
    best = best_epoch(epochs)
    charts = [chart for name in ("loss", "top1") if (chart := _chart(epochs, name, best)) is not None]
    body = fragment("curves.html", charts=charts, rows=_rows(epochs, best), best=best, epochs=len(epochs))
    return Section(f"{anchor}curves", "Learning curves", body)


def _chart(epochs: Sequence[EpochMetrics], name: str, best: int | None) -> LineChart | None:
    """Return the chart of a figure, or None if no epoch has it, as where a head gives no scores while it trains."""
    factor = 100.0 if name == "top1" else 1.0
    lines = []
    for color, (part, label) in enumerate(PARTS.items(), 1):
        x, y = series(epochs, part, name)
        points = list(zip(x.tolist(), (factor * y).tolist(), strict=True))
        if points:
            lines.append(Line(label, points, color, dashed=part == "train"))
    if not lines:
        return None
    validated = dict(next((line.points for line in lines if not line.dashed), ()))
    mark = None
    if best is not None and best in validated:
        mark = Mark(best, validated[best], f"best epoch: {best}")
    title = "Top-1 accuracy, %" if name == "top1" else "Loss (cross entropy, nats)"
    described = "; ".join(f"{line.name}: {_course(line.points, name)}" for line in lines)
    return LineChart(title, f"{title} by epoch. {described}.", lines, from_zero=name == "top1", mark=mark)


def _course(points: Sequence[tuple[float, float]], name: str) -> str:
    """Say how a curve goes, for who cannot see it."""
    digits = 1 if name == "top1" else 3
    low, high = (f(y for _, y in points) for f in (min, max))
    return (
        f"from {points[0][1]:.{digits}f} in epoch {points[0][0]:.0f} to {points[-1][1]:.{digits}f} in epoch "
        f"{points[-1][0]:.0f}, between {low:.{digits}f} and {high:.{digits}f}"
    )


def _rows(epochs: Sequence[EpochMetrics], best: int | None) -> list[list[str]]:
    """Return what the table says of each epoch, or of some."""
    numbers = [line.epoch for line in epochs]
    kept = (
        set(np.linspace(0, len(epochs) - 1, min(len(epochs), EPOCHS_LISTED)).astype(int).tolist()) if epochs else set()
    )
    return [_row(line) for i, line in enumerate(epochs) if i in kept or numbers[i] == best]


def _row(line: EpochMetrics) -> list[str]:
    losses = [_loss(line.train.loss), _loss(None if line.val is None else line.val.loss)]
    accuracies = [share(line.train.top1), share(None if line.val is None else line.val.top1)]
    return [str(line.epoch), *losses, *accuracies, f"{line.rates['backbone']:.2g}", f"{line.seconds:.0f}"]


def _loss(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


SHOWN = 24
"""Up to so many classes all are shown at once."""
EXTREME = 10
"""Of more, so many of the worst and of the best."""
CLASSES_LISTED = 400
"""Classes of the whole list at most: a longer one would make the page heavy, and `per_class.csv` has it."""


@dataclass(frozen=True)
class Group:
    """Classes in one table.

    Attributes:
        title: which.
        rows: as `fgvc evaluate` writes them, worst first (or best first).
    """

    title: str
    rows: Sequence[ClassMetrics]


def classes_section(scored: Scored, anchor: str) -> Section:
    """Return the tables with their bars; classes without images are named apart."""
    per_class = scored.summary.per_class
    rows = sorted((row for row in per_class if row.images), key=lambda row: (row.top1 or 0.0, row.f1 or 0.0))
    absent = [row.name for row in per_class if not row.images]
    if len(rows) <= SHOWN:
        groups = [Group("All classes, worst first", rows)]
    else:
        groups = [
            Group(f"The worst {EXTREME}", rows[:EXTREME]),
            Group(f"The best {EXTREME}", rows[: -EXTREME - 1 : -1]),
        ]
    body = fragment(
        "classes.html",
        outline=_outline(rows) if len(rows) > SHOWN else Markup(),
        groups=groups,
        rest=_rest(rows),
        present=len(rows),
        listed=min(len(rows), CLASSES_LISTED),
        absent=absent,
    )
    return Section(f"{anchor}classes", "Accuracy by class", body, said=f"{count(len(rows))} classes")


def _outline(rows: Sequence[ClassMetrics]) -> Markup:
    accuracies = [row.top1 or 0.0 for row in rows]
    return skyline(accuracies, sum(accuracies) / len(accuracies))


def _rest(rows: Sequence[ClassMetrics]) -> Group | None:
    """Return the whole list, or its worst part, if not all are shown anyway."""
    if len(rows) <= SHOWN:
        return None
    title = "All classes, worst first" if len(rows) <= CLASSES_LISTED else f"The worst {CLASSES_LISTED} classes"
    return Group(title, rows[:CLASSES_LISTED])


PAIRS = 12
"""Confused pairs that are named."""


@dataclass(frozen=True)
class Pair:
    """Images of a class that were taken for another one.

    Attributes:
        true, predicted: class names.
        images: how many.
        share: of the images of the true class, in [0, 1].
    """

    true: str
    predicted: str
    images: int
    share: float


def confusion_section(scored: Scored, anchor: str) -> Section:
    """Return the matrix and the pairs that are most confused."""
    matrix, names = confused(scored.predictions), scored.class_names
    pairs = most_confused(matrix)
    few = len(names) <= COUNTED_CLASSES
    drawn = confusion_table(matrix, names) if few else confusion_picture(matrix, names)
    wrong = sum(images for (true, predicted), images in matrix.items() if true != predicted)
    body = fragment("confusion.html", matrix=drawn, pairs=pairs, few=few)
    return Section(f"{anchor}confusion", "Confusion", body, said=f"{count(wrong)} mistakes")


def most_confused(matrix: Confused, pairs: int = PAIRS) -> Sequence[Pair]:
    """Return the pairs with the most mistakes, at equal numbers the larger share first."""
    totals: Counter[str] = Counter()
    for (true, _), images in matrix.items():
        totals[true] += images
    found = [
        Pair(true, predicted, images, images / totals[true])
        for (true, predicted), images in matrix.items()
        if true != predicted
    ]
    return sorted(found, key=lambda pair: (-pair.images, -pair.share, pair.true, pair.predicted))[:pairs]


def mistakes_section(examples: Examples, anchor: str) -> Section:
    """Return the most confident mistakes with the heat maps of both classes."""
    body = fragment("mistakes.html", examples=examples, scale=_scale())
    return Section(f"{anchor}mistakes", "Most confident mistakes", body)


def occlusion_section(examples: Examples, anchor: str) -> Section:
    """Return the panels of the occlusion test."""
    outcomes = [example.survived for example in examples.panels]
    body = fragment("occlusion.html", examples=examples, scale=_scale())
    said = f"the decision survives in {sum(map(bool, outcomes))} of {len(outcomes)} images" if outcomes else ""
    return Section(f"{anchor}occlusion", "What the decision rests on", body, said=said)


def _scale() -> Picture:
    """Return the colors of a heat map from 0 to 1."""
    bar, data = color_scale(160, 8), io.BytesIO()
    bar.save(data, format="png", optimize=True)
    uri = "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()
    return Picture(uri, bar.width, bar.height, "from dark violet at 0 over red to pale yellow at 1")
