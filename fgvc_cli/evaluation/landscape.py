"""Draw the loss around the weights of runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np

from fgvc_cli.evaluation.sharpness import Sharpness
from fgvc_cli.viz import FAINT, INK, TRAIN_COLOR, VAL_COLOR, draw_grid, make_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORMAP = "viridis"
"""Perceptually uniform, also with color blindness; the lowest loss is darkest."""
SHADES = 60
"""Number of colors from the lowest loss to the highest."""
PALE = 0.65
"""From this position on the scale, colors are pale and lines on them dark."""
MAX_LOSS = 3.0
"""Upper end of the scales, in multiples of the loss of uniform predictions."""
DIGITS = ((1, 2, 5), (1, 1.5, 2, 3, 5, 7), (1, 1.2, 1.4, 1.7, 2, 2.4, 2.8, 3.4, 4, 5, 6, 7, 8.5))
"""Contour levels within a power of ten: the first set that results in at least `LINES`."""
LINES = 5

PANEL_INCHES = 4.3
MAX_LABEL = 40
"""Maximum length of a line of a title."""


@dataclass(frozen=True)
class Scale:
    """A logarithmic color scale from the lowest to the highest loss."""

    lowest: float
    highest: float

    def position(self, loss: float) -> float:
        """Return the position of a loss on the scale: 0 lowest, 1 highest."""
        return math.log(loss / self.lowest) / math.log(self.highest / self.lowest)

    def levels(self) -> list[float]:
        """Return the round losses at which contour lines are drawn."""
        powers = range(math.floor(math.log10(self.lowest)), math.ceil(math.log10(self.highest)) + 1)
        found: list[float] = []
        for digits in DIGITS:
            every = (digit * 10.0**power for power in powers for digit in digits)
            found = [level for level in every if self.lowest < level < self.highest]
            if len(found) >= LINES:
                break
        return found


def draw_landscape(path: Path, labels: Sequence[str], runs: Sequence[Sharpness]) -> None:
    """Draw the planes of runs above and their lines below, as a PNG; for a single run, side by side.

    All planes share a color scale, all lines share their axes.
    """
    one = len(runs) == 1
    figure = make_figure(PANEL_INCHES * max(2, len(runs)) + 0.8, PANEL_INCHES * (1 if one else 2))
    panels = figure.subplots(1, 2, squeeze=False).T if one else figure.subplots(2, len(runs), squeeze=False)
    scale = _scale(runs)
    for axes, run, label in zip(panels[0], runs, labels, strict=True):
        _draw_plane(axes, run, scale)
        title = [*wrap(label, MAX_LABEL), f"loss {run.loss:.3g} on {run.images} images"]
        # A dollar sign would start mathematical notation.
        axes.set_title("\n".join(title).replace("$", r"\$"), loc="left", color=INK, fontsize=10)
    _color_bar(figure, list(panels[0]), scale)
    for axes, run in zip(panels[1], runs, strict=True):
        _draw_lines(axes, run)
    _share_height(panels[1], scale)
    handles, labels_ = panels[1][0].get_legend_handles_labels()
    figure.legend(handles, labels_, loc="outside lower right", ncols=2, frameon=False, labelcolor=INK, fontsize=9)
    save_figure(figure, path)


def _scale(runs: Sequence[Sharpness]) -> Scale:
    """Return one scale for all runs."""
    losses = np.concatenate([run.plane.ravel() for run in runs if run.plane is not None])
    positive = losses[np.isfinite(losses) & (losses > 0)]
    highest = min(positive.max(initial=1e-6), MAX_LOSS * max(math.log(run.classes) for run in runs))
    lowest = min(positive.min(initial=highest), highest / 1.01)
    return Scale(float(lowest), float(highest))


def _draw_plane(axes: Axes, run: Sharpness, scale: Scale) -> None:
    assert run.plane is not None
    coordinates = run.settings.coordinates
    shown = np.clip(np.nan_to_num(run.plane, nan=np.inf), scale.lowest, scale.highest)
    shades = np.geomspace(scale.lowest, scale.highest, SHADES)
    axes.contourf(coordinates, coordinates, shown, shades, cmap=COLORMAP, norm=_norm(scale), extend="both")
    levels = [level for level in scale.levels() if shown.min() < level < shown.max()]
    if levels:
        colors = [INK if scale.position(level) > PALE else "white" for level in levels]
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

    bar = figure.colorbar(ScalarMappable(_norm(scale), COLORMAP), ax=panels, aspect=30, pad=0.02, extend="max")
    levels = scale.levels()
    bar.set_ticks(levels, labels=[f"{level:g}" for level in levels])
    bar.minorticks_off()
    bar.set_label("loss, nats", color=INK, fontsize=9)
    bar.ax.tick_params(colors=INK, length=0, labelsize=8)
    bar.outline.set_visible(False)


def _draw_lines(axes: Axes, run: Sharpness) -> None:
    """Draw the loss on lines through the weights, which are at 0."""
    radii, middle, rho = run.radii, len(run.radii) // 2, run.settings.rho
    places = np.insert(radii, middle, 0.0)
    for number, losses in enumerate(run.random):
        label = "random directions" if number == 0 else None
        axes.plot(places, np.insert(losses, middle, run.loss), color=TRAIN_COLOR, linewidth=1.2, label=label)
    along = np.insert(run.gradient, middle, run.loss)
    axes.plot(places, along, color=VAL_COLOR, linewidth=1.8, marker="o", markersize=3.5, label="along the gradient")
    axes.axvline(rho, color=FAINT, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
    axes.annotate(f"ρ = {rho:g}", (rho, 1), (3, -9), ("data", "axes fraction"), "offset points", color=INK, fontsize=8)
    axes.set_xticks(**_five_ticks(places))
    axes.set_xlabel("distance from the weights (L2); right: uphill", color=INK)
    axes.set_ylabel("loss, nats", color=INK)
    draw_grid(axes)


def _five_ticks(places: Sequence[float] | np.ndarray) -> dict[str, Any]:
    """Return five evenly spaced ticks and their labels."""
    ticks = np.linspace(places[0], places[-1], 5)
    return {"ticks": ticks, "labels": [f"{tick:g}".replace("-", "−") for tick in ticks]}


def _share_height(panels: Sequence[Axes], scale: Scale) -> None:
    """Give all panels the same loss axis; it ends where the colors do, so that no outlier flattens the rest."""
    lowest = min(axes.get_ylim()[0] for axes in panels)
    highest = min(max(axes.get_ylim()[1] for axes in panels), 1.05 * scale.highest)
    for axes in panels:
        axes.set_ylim(lowest, max(highest, lowest + 1e-6))
