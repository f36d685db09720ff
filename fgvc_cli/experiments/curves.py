"""Draw the learning curves of compared runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fgvc_cli.experiments.comparison import Row
from fgvc_cli.runs.results import EpochMetrics
from fgvc_cli.viz import dress, make_figure, save_figure, series

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's palette, which the usual kinds of color blindness keep apart; without its yellow, too pale for lines.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#22272E")
STROKES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))
PANELS = (
    ("val", "top1", "Validation top-1 accuracy, %", 100.0),
    ("val", "loss", "Validation loss", 1.0),
    ("train", "top1", "Training top-1 accuracy, %", 100.0),
    ("train", "loss", "Training loss", 1.0),
)


def overlaid_curves(path: Path, rows: Sequence[Row], labels: Sequence[str]) -> None:
    """Draw accuracy and loss by epoch, validation above training, a line for each row: the mean over its seeds.

    The spread over seeds is shaded. Rows take colors in turn, and then another stroke.

    Args:
        path: PNG to write.
        rows: whose runs have metrics by epoch.
        labels: what the legend calls them.
    """
    legend_lines = -(-len(rows) // 2)
    figure = make_figure(10.0, 7.4 + 0.22 * legend_lines)
    axes = figure.subplots(2, 2)
    metrics = [[run.run.metrics for run in row.runs] for row in rows]
    for panel, (part, name, title, factor) in zip(axes.flat, PANELS, strict=True):
        for number, of_runs in enumerate(metrics):
            _draw(panel, of_runs, part, name, factor, number)
        dress(panel, title, legend=False)
    handles = [_line(number) for number in range(len(rows))]
    figure.legend(
        handles, [label.replace("$", r"\$") for label in labels], loc="outside lower left", ncols=2, frameon=False,
        fontsize=9,
    )  # fmt: skip
    save_figure(figure, path)


def _draw(
    axes: Axes, of_runs: Sequence[Sequence[EpochMetrics]], part: str, name: str, factor: float, number: int
) -> None:
    """Draw one row: `number` chooses its color and stroke."""
    found = [series(lines, part, name) for lines in of_runs]
    epochs = sorted({float(epoch) for run_epochs, _ in found for epoch in run_epochs})
    if not epochs:
        return
    table = np.full((len(found), len(epochs)), np.nan)  # a run that stopped early has none at the end
    for i, (run_epochs, values) in enumerate(found):
        table[i, np.searchsorted(epochs, run_epochs)] = factor * values
    seen = np.isfinite(table)
    means = np.where(seen, table, 0).sum(axis=0) / seen.sum(axis=0)
    style = _style(number)
    axes.plot(epochs, means, linewidth=1.7, marker="o" if len(epochs) == 1 else "", markersize=4, **style)
    if len(found) > 1:
        low = np.where(seen, table, np.inf).min(axis=0)
        high = np.where(seen, table, -np.inf).max(axis=0)
        axes.fill_between(epochs, low, high, color=style["color"], alpha=0.12, linewidth=0)


def _line(number: int) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], linewidth=1.7, **_style(number))


def _style(number: int) -> dict[str, Any]:
    stroke = STROKES[number // len(COLORS) % len(STROKES)]
    return {"color": COLORS[number % len(COLORS)], "linestyle": stroke}
