"""Learning curves: loss and accuracy by epoch, of training and validation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fgvc_cli.display.figures import best_epoch, series
from fgvc_cli.reporting.charts.lines import Line, LineChart, Mark
from fgvc_cli.reporting.page import Section
from fgvc_cli.reporting.recorded import Recorded
from fgvc_cli.reporting.templating import fragment, share

LISTED = 60
"""Epochs that the table below the curves has at most, evenly apart, with the best one and the last."""
PARTS = {"train": "training (augmented images)", "val": "validation"}


def curves_section(recorded: Recorded, anchor: str) -> Section:
    """Return the curves, and their figures as a table; of a run without epochs, a sentence."""
    epochs = recorded.epochs
    best = best_epoch(epochs)
    charts = [chart for name in ("loss", "top1") if (chart := _chart(epochs, name, best)) is not None]
    body = fragment("curves.html", charts=charts, rows=_rows(epochs, best), best=best, epochs=len(epochs))
    return Section(f"{anchor}curves", "Learning curves", body)


def _chart(epochs: Sequence[dict[str, Any]], name: str, best: int | None) -> LineChart | None:
    """Return the chart of a figure, or None if no epoch has it, as where a head gives no scores while it trains."""
    factor = 100.0 if name == "top1" else 1.0
    lines = []
    for colour, (part, label) in enumerate(PARTS.items(), 1):
        x, y = series(epochs, part, name)
        points = list(zip(x.tolist(), (factor * y).tolist(), strict=True))
        if points:
            lines.append(Line(label, points, colour, dashed=part == "train"))
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


def _rows(epochs: Sequence[dict[str, Any]], best: int | None) -> list[list[str]]:
    """Return what the table says of each epoch, or of some."""
    numbers = [int(line["epoch"]) for line in epochs]
    kept = set(np.linspace(0, len(epochs) - 1, min(len(epochs), LISTED)).astype(int).tolist()) if epochs else set()
    return [_row(line) for i, line in enumerate(epochs) if i in kept or numbers[i] == best]


def _row(line: dict[str, Any]) -> list[str]:
    train, val = line["train"], line["val"] or {}
    losses = [_loss(part.get("loss")) for part in (train, val)]
    accuracies = [share(part.get("top1")) for part in (train, val)]
    return [str(line["epoch"]), *losses, *accuracies, f"{line['rates']['backbone']:.2g}", f"{line['seconds']:.0f}"]


def _loss(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
