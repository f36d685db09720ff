"""Draw the loss around the weights of runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np

from fgvc_cli.formatting import run_labels
from fgvc_cli.viz import FAINT, INK, TRAIN_COLOR, VAL_COLOR, draw_grid, make_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = "viridis"
"""Equal steps look equally large, to the color-blind too; the lowest loss is darkest."""
SHADES = 60
"""Steps of color from the lowest loss to the highest."""
PALE = 0.65
"""From this part of the scale up the colors are pale, and lines on them dark."""
LOST = 3.0
"""The end of the scales, in losses of a network that gives every class the same probability: above, all is lost."""
DIGITS = ((1, 2, 5), (1, 1.5, 2, 3, 5, 7), (1, 1.2, 1.4, 1.7, 2, 2.4, 2.8, 3.4, 4, 5, 6, 7, 8.5))
"""Contour lines in a power of ten: the fewest that give `LINES`."""
LINES = 5

PANEL_INCHES = 4.3
NAME_LENGTH = 40
"""Characters of a run's name in a line above its panel."""


@dataclass(frozen=True)
class Scale:
    """The losses that colors stand for, from the lowest to the highest, evenly by their logarithm."""

    lowest: float
    highest: float

    def part(self, loss: float) -> float:
        """Return where a loss lies on the scale: 0 lowest, 1 highest."""
        return math.log(loss / self.lowest) / math.log(self.highest / self.lowest)

    def levels(self) -> list[float]:
        """Return the round losses that contour lines are drawn at."""
        powers = range(math.floor(math.log10(self.lowest)), math.ceil(math.log10(self.highest)) + 1)
        found: list[float] = []
        for digits in DIGITS:
            every = (digit * 10.0**power for power in powers for digit in digits)
            found = [level for level in every if self.lowest < level < self.highest]
            if len(found) >= LINES:
                break
        return found


def draw_landscape(path: Path, summary: Mapping[str, Any]) -> None:
    """Draw the runs beside each other: above the plane, below the lines; of one run both beside each other.

    All planes have the same colors, all lines the same axes.

    Args:
        path: PNG to write.
        summary: as in `sharpness.json`; a run whose plane is missing is left out, and at least one has one.
    """
    runs = [run for run in summary["runs"] if run["landscape"]]
    names = run_labels([run["run"] for run in runs])
    one = len(runs) == 1
    figure = make_figure(PANEL_INCHES * max(2, len(runs)) + 0.8, PANEL_INCHES * (1 if one else 2))
    panels = figure.subplots(1, 2, squeeze=False).T if one else figure.subplots(2, len(runs), squeeze=False)
    scale = _scale(runs)
    for axes, run, name in zip(panels[0], runs, names, strict=True):
        _draw_plane(axes, run, scale)
        axes.set_title(_title(name, run), loc="left", color=INK, fontsize=10)
    _color_bar(figure, list(panels[0]), scale)
    for axes, run in zip(panels[1], runs, strict=True):
        _draw_lines(axes, run, summary["rho"])
    _share_height(panels[1], scale)
    handles, labels = panels[1][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower right", ncols=2, frameon=False, labelcolor=INK, fontsize=9)
    save_figure(figure, path)


def _scale(runs: Sequence[Mapping[str, Any]]) -> Scale:
    """Return one scale for all runs."""
    losses = np.concatenate([_array(run["landscape"]["losses"]).ravel() for run in runs])
    seen = losses[np.isfinite(losses) & (losses > 0)]
    highest = min(seen.max(initial=1e-6), LOST * max(math.log(run["classes"]) for run in runs))
    lowest = min(seen.min(initial=highest), highest / 1.01)
    return Scale(float(lowest), float(highest))


def _draw_plane(axes: Axes, run: Mapping[str, Any], scale: Scale) -> None:
    coordinates, losses = run["landscape"]["coordinates"], _array(run["landscape"]["losses"])
    shown = np.clip(np.nan_to_num(losses, nan=np.inf), scale.lowest, scale.highest)
    shades = np.geomspace(scale.lowest, scale.highest, SHADES)
    axes.contourf(coordinates, coordinates, shown, shades, cmap=COLORS, norm=_norm(scale), extend="both")
    levels = [level for level in scale.levels() if shown.min() < level < shown.max()]
    if levels:
        colors = [INK if scale.part(level) > PALE else "white" for level in levels]
        lines = axes.contour(coordinates, coordinates, shown, levels, colors=colors, linewidths=0.7)
        axes.clabel(lines, fmt=lambda level: f"{level:g}", fontsize=7.5)
    axes.plot([0], [0], marker="+", markersize=9, markeredgewidth=1.6, color="white")
    axes.set_aspect("equal")
    ticks = _five_ticks(coordinates)
    axes.set_xticks(**ticks)
    axes.set_yticks(**ticks)
    axes.set_xlabel("first direction, in norms of the filters", color=INK)
    axes.set_ylabel("second direction", color=INK)
    axes.tick_params(colors=INK, length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _norm(scale: Scale) -> Any:
    from matplotlib.colors import LogNorm

    return LogNorm(scale.lowest, scale.highest)


def _color_bar(figure: Figure, panels: list[Axes], scale: Scale) -> None:
    from matplotlib.cm import ScalarMappable

    bar = figure.colorbar(ScalarMappable(_norm(scale), COLORS), ax=panels, aspect=30, pad=0.02, extend="max")
    levels = scale.levels()
    bar.set_ticks(levels, labels=[f"{level:g}" for level in levels])
    bar.minorticks_off()
    bar.set_label("loss, nats", color=INK, fontsize=9)
    bar.ax.tick_params(colors=INK, length=0, labelsize=8)
    bar.outline.set_visible(False)


def _draw_lines(axes: Axes, run: Mapping[str, Any], rho: float) -> None:
    """Draw the loss on lines through the weights, which lie at 0."""
    lines, middle = run["lines"], len(run["lines"]["radii"]) // 2
    radii = np.insert(_array(lines["radii"]), middle, 0.0)
    for number, losses in enumerate(lines["random"]):
        label = "random directions" if number == 0 else None
        axes.plot(radii, np.insert(_array(losses), middle, run["loss"]), color=TRAIN_COLOR, linewidth=1.2, label=label)
    along = np.insert(_array(lines["gradient"]), middle, run["loss"])
    axes.plot(radii, along, color=VAL_COLOR, linewidth=1.8, marker="o", markersize=3.5, label="along the gradient")
    axes.axvline(rho, color=FAINT, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
    axes.annotate(f"ρ = {rho:g}", (rho, 1), (3, -9), ("data", "axes fraction"), "offset points", color=INK, fontsize=8)
    axes.set_xticks(**_five_ticks(radii))
    axes.set_xlabel("distance from the weights (L2); right: uphill", color=INK)
    axes.set_ylabel("loss, nats", color=INK)
    draw_grid(axes)


def _five_ticks(places: Sequence[float] | np.ndarray) -> dict[str, Any]:
    """Return five ticks from end to end, and their labels."""
    ticks = np.linspace(places[0], places[-1], 5)
    return {"ticks": ticks, "labels": [f"{tick:g}".replace("-", "−") for tick in ticks]}


def _share_height(panels: Sequence[Axes], scale: Scale) -> None:
    """Give all panels the same loss axis; it ends where the colors do, or one explosion would flatten all else."""
    lowest = min(axes.get_ylim()[0] for axes in panels)
    highest = min(max(axes.get_ylim()[1] for axes in panels), 1.05 * scale.highest)
    for axes in panels:
        axes.set_ylim(lowest, max(highest, lowest + 1e-6))


def _array(values: Any) -> np.ndarray:
    """Return nested lists as an array, None as not a number."""
    return np.array(values, dtype=float)


def _title(name: str, run: Mapping[str, Any]) -> str:
    # A dollar sign would start mathematical notation.
    return "\n".join([*wrap(name, NAME_LENGTH), f"loss {run['loss']:.3g} on {run['images']} images"]).replace(
        "$", r"\$"
    )
