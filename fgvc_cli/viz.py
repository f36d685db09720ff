"""Plots as PNG files: learning curves, confusion matrices, coverage and precision."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fgvc_cli.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from fgvc_cli.runs.results import EpochMetrics

# Blue and vermilion of the palette by Okabe and Ito, which people with color blindness can tell apart.
TRAIN_COLOR, VAL_COLOR = "#0072B2", "#D55E00"
INK, FAINT = "#22272E", "#B8BEC6"

COUNTED_CLASSES = 15
"""Maximum number of classes for which the cells of a confusion matrix show their number of images."""
NAMED_CLASSES = 40
"""Maximum number of classes for which every row and column is labeled; with more, only some are."""


def learning_curves(path: Path, lines: Sequence[EpochMetrics]) -> None:
    """Draw loss and top-1 accuracy of training and validation by epoch, with the best epoch marked, as a PNG."""
    figure = make_figure(10.0, 4.2)
    left, right = figure.subplots(1, 2)
    best = best_epoch(lines)
    for axes, name, title, factor in ((left, "loss", "Loss", 1.0), (right, "top1", "Top-1 accuracy, %", 100.0)):
        for part, label, color in (("train", "training", TRAIN_COLOR), ("val", "validation", VAL_COLOR)):
            epochs, values = series(lines, part, name)
            marker = "o" if len(epochs) <= 30 else ""
            if len(epochs):
                axes.plot(
                    epochs, values * factor, color=color, label=label, linewidth=1.8, marker=marker, markersize=3.5
                )
        _mark_best(axes, lines, best, name, factor)
        dress(axes, title)
        if lines:
            axes.set_xlim(lines[0].epoch - 0.5, lines[-1].epoch + 0.5)
    right.set_ylim(0, max(1.0, min(103.0, 1.1 * _highest_top1(lines))))
    save_figure(figure, path)


def confusion_matrix(path: Path, matrix: np.ndarray, class_names: Sequence[str], title: str = "") -> None:
    """Draw a confusion matrix K,K as a PNG: rows are true classes, columns predictions, color the fraction of the row.

    The diagonal is blue; mistakes are orange on a square-root scale, so that rare ones are visible. Rows without images
    are gray.
    """
    classes = len(class_names)
    totals = matrix.sum(axis=1, keepdims=True)
    shares = 100 * matrix / np.maximum(totals, 1)
    side = 3.2 + 0.21 * min(classes, NAMED_CLASSES) if classes <= NAMED_CLASSES else 12.0
    figure = make_figure(side + 1.6, side)
    axes = figure.subplots()
    _draw_shares(figure, axes, shares, blank=np.broadcast_to(totals == 0, matrix.shape))
    _name_classes(axes, class_names)
    if classes <= COUNTED_CLASSES:
        _count_cells(axes, matrix, shares)
    axes.set_xlabel("predicted", color=INK)
    axes.set_ylabel("true", color=INK)
    if title:
        axes.set_title(title, loc="left", color=INK, fontsize=11)
    save_figure(figure, path)


def _draw_shares(figure: Figure, axes: Axes, shares: np.ndarray, blank: np.ndarray) -> None:
    """Draw fractions K,K in %, in two colors with their scales; `blank` cells K,K are gray."""
    from matplotlib.colors import ListedColormap, Normalize, PowerNorm

    diagonal = np.eye(len(shares), dtype=bool)
    never = shares == 0  # white: a pale tint in most cells would hide rare mistakes
    layers = (
        (diagonal | blank | never, "Oranges", PowerNorm(0.5, 0, 100), "wrong, % of the true class", [1, 5, 20, 50]),
        (~diagonal | blank, "Blues", Normalize(0, 100), "correct, % of the true class", [0, 25, 50, 75]),
    )
    for hidden, colors, scale, label, ticks in layers:
        image = axes.imshow(np.ma.array(shares, mask=hidden), cmap=colors, norm=scale, interpolation="nearest")
        bar = figure.colorbar(image, ax=axes, fraction=0.04, aspect=30, shrink=0.8, pad=0.02, ticks=[*ticks, 100])
        bar.set_label(label, color=INK, fontsize=9)
        bar.ax.tick_params(colors=INK, length=0, labelsize=8)
        bar.outline.set_visible(False)
    axes.imshow(np.ma.array(shares, mask=~blank), cmap=ListedColormap(["#EEF0F2"]), interpolation="nearest")


def coverage_precision(
    path: Path, answered: np.ndarray, precision: np.ndarray, promised: tuple[float, float] | None, title: str
) -> None:
    """Draw precision by the fraction of images answered as a PNG.

    Args:
        path: of the file.
        answered, precision: fractions, one for each number of answers.
        promised: fraction answered and precision of a threshold to mark; None for none.
        title: of the plot.
    """
    figure = make_figure(6.4, 4.2)
    axes = figure.subplots()
    axes.plot(100 * answered, 100 * precision, color=TRAIN_COLOR, linewidth=1.8)
    if promised is not None:
        share, least = (100 * value for value in promised)
        axes.axhline(least, color=FAINT, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
        value = 100 * precision[max(0, round(promised[0] * len(precision)) - 1)]
        axes.plot([share], [value], marker="o", markersize=8, markerfacecolor="none", markeredgecolor=VAL_COLOR,
                  markeredgewidth=1.6, linestyle="", label=f"answers {share:.1f} %: precision {value:.1f} % (promised: above {least:.1f} %)")  # fmt: skip  # noqa: E501
        axes.legend(frameon=False, labelcolor=INK, fontsize=9, loc="lower left")
    axes.set_title(f"Precision of the answers, % ({title})", loc="left", color=INK, fontsize=11)
    axes.set_xlabel("images answered, most confident first, %", color=INK)
    axes.set_xlim(0, 101)
    axes.set_ylim(max(0.0, 100 * float(precision[len(precision) // 20 :].min()) - 10), 101)
    draw_grid(axes)
    save_figure(figure, path)


def make_figure(width: float, height: float) -> Figure:
    """Create a figure of a size in inches, rendered by Agg."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG, cropped to its contents."""
    data = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # class names in scripts that the font lacks
        figure.savefig(data, format="png", bbox_inches="tight", pad_inches=0.2)
    write_bytes(path, data.getvalue())


def _value(line: EpochMetrics, split: str, name: str) -> float:
    value = getattr(getattr(line, split), name, None)
    return float("nan") if value is None else float(value)


def series(lines: Sequence[EpochMetrics], split: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the epochs with a finite value, and the values of "loss" or "top1" of "train" or "val"."""
    pairs = [(line.epoch, _value(line, split, name)) for line in lines]
    finite = [(epoch, value) for epoch, value in pairs if np.isfinite(value)]
    table = np.array(finite, dtype=float).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def best_epoch(lines: Sequence[EpochMetrics]) -> int | None:
    """Return the epoch with the highest validation top-1; ties go to the lowest loss, then to the earliest."""

    def quality(line: EpochMetrics) -> tuple[float, float, int]:
        loss = _value(line, "val", "loss")
        return _value(line, "val", "top1"), -loss if np.isfinite(loss) else -np.inf, -line.epoch

    validated = [line for line in lines if np.isfinite(_value(line, "val", "top1"))]
    return max(validated, key=quality).epoch if validated else None


def _highest_top1(lines: Sequence[EpochMetrics]) -> float:
    """Return the highest top-1 accuracy of training and validation in %, 0 if there is none."""
    values = np.concatenate([series(lines, part, "top1")[1] for part in ("train", "val")])
    return 100.0 * float(values.max(initial=0.0))


def _mark_best(axes: Axes, lines: Sequence[EpochMetrics], best: int | None, name: str, factor: float) -> None:
    epochs, values = series(lines, "val", name)
    if best is None or best not in epochs:
        return
    value = float(values[epochs == best][0]) * factor
    text = f"best epoch {best}: {value:.1f} %" if name == "top1" else f"best epoch {best}"
    axes.axvline(best, color=FAINT, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
    axes.plot([best], [value], marker="o", markersize=8, markerfacecolor="none", markeredgecolor=VAL_COLOR,
              markeredgewidth=1.6, linestyle="", label=text)  # fmt: skip


def dress(axes: Axes, title: str, legend: bool = True) -> None:
    """Add title, grid and legend to axes over epochs."""
    from matplotlib.ticker import MaxNLocator

    axes.set_title(title, loc="left", color=INK, fontsize=11)
    axes.set_xlabel("epoch", color=INK)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    draw_grid(axes)
    handles, labels = axes.get_legend_handles_labels()
    if handles and legend:
        axes.legend(handles, labels, frameon=False, labelcolor=INK, fontsize=9)


def draw_grid(axes: Axes) -> None:
    """Draw faint horizontal lines behind a plot, and of the frame only the bottom line."""
    axes.grid(axis="y", color="#E6E9ED", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)


def _name_classes(axes: Axes, class_names: Sequence[str]) -> None:
    """Label rows and columns with class names: all of them, or some at even distances."""
    classes = len(class_names)
    step = max(1, -(-classes // NAMED_CLASSES))
    places = list(range(0, classes, step))
    size = 9 if classes <= 20 else 7
    names = [_short(class_names[i]) for i in places]
    few = classes <= 6
    axes.set_xticks(places, names, fontsize=size, rotation=30 if few else 90, ha="right" if few else "center")
    if few:
        axes.tick_params(axis="x", labelrotation_mode="anchor")
    axes.set_yticks(places, names, fontsize=size)
    axes.tick_params(colors=INK, length=0)
    for spine in axes.spines.values():
        spine.set_edgecolor(FAINT)
    if classes <= NAMED_CLASSES:  # thin white lines between the cells
        axes.set_xticks(np.arange(-0.5, classes), minor=True)
        axes.set_yticks(np.arange(-0.5, classes), minor=True)
        axes.grid(which="minor", color="white", linewidth=0.8)
        axes.tick_params(which="minor", length=0)


def _short(name: str, length: int = 28) -> str:
    # A dollar sign would start mathematical notation.
    text = name if len(name) <= length else name[: length - 1] + "…"
    return text.replace("$", r"\$")


def _count_cells(axes: Axes, matrix: np.ndarray, shares: np.ndarray) -> None:
    """Write the number of images into each nonempty cell, in a color that is readable on it."""
    for row, column in zip(*np.nonzero(matrix), strict=True):
        color = "white" if shares[row, column] > (60 if row == column else 35) else INK
        axes.text(column, row, f"{matrix[row, column]}", ha="center", va="center", color=color, fontsize=9)
