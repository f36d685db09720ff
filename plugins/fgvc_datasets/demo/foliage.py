"""What is in focus around the bird: the perch, twigs, leaves and berries."""

from __future__ import annotations

import cmath
import math

import numpy as np

from fgvc_datasets.demo.backdrop import Season
from fgvc_datasets.demo.canvas import Canvas, Color, Frame, closed_curve, mix, open_curve, points, ribbon, shade
from fgvc_datasets.demo.plumage import vary
from fgvc_datasets.demo.pose import Anatomy

_LEAF = closed_curve(points((0, 0), (0.22, -0.17), (0.58, -0.20), (1, 0), (0.58, 0.18), (0.22, 0.15)))
_LEAF_HALF = closed_curve(points((0, 0), (0.22, 0.15), (0.58, 0.18), (1, 0), (0.6, 0.02), (0.25, 0.01)))
_VEINS = [points((0.06, 0), (0.5, 0.012), (0.96, 0))] + [
    points((x, 0.0), (x + 0.14, side * 0.11)) for x in (0.25, 0.45, 0.63) for side in (-1, 1)
]


def draw_leaf(canvas: Canvas, frame: Frame, color: Color) -> None:
    """A leaf from (0, 0) to (1, 0) of `frame`, one half in the shade."""
    canvas.polygon(frame(_LEAF), color)
    canvas.polygon(frame(_LEAF_HALF), shade(color, 0.84))
    for width, vein in zip((0.035, *[0.018] * 6), _VEINS, strict=True):
        canvas.line(frame(vein), width * frame.scale, mix(color, (250, 250, 220), 0.3))


def _berry(canvas: Canvas, center: complex, radius: float, color: Color) -> None:
    canvas.circle(center, radius, shade(color, 0.72))
    canvas.circle(center - radius * complex(0.10, 0.12), radius * 0.84, color)
    canvas.circle(center - radius * complex(0.32, 0.36), radius * 0.26, mix(color, (255, 255, 255), 0.7))


def _twig(canvas: Canvas, rng: np.random.Generator, season: Season, root: complex, angle: float) -> None:
    """A twig from `root` in the direction `angle`, with leaves or berries."""
    length, bend = rng.uniform(0.14, 0.34), rng.uniform(-0.5, 0.5)
    frame = Frame(root, cmath.rect(length, angle))
    line = open_curve(np.array([0, 0.5 + 0.12j * bend, 1 + 0.5j * bend]))
    canvas.polygon(frame(ribbon(line, (0.07, 0.03))), shade(season.bark, 0.9))
    for step in range(int(rng.integers(2, 5))):
        at = line[min(len(line) - 1, 5 + 3 * step)]
        side, size = (-1) ** step, rng.uniform(0.075, 0.15) / length
        draw_leaf(canvas, frame.at(at, side * rng.uniform(0.4, 1.1), size), vary(season.leaf, rng, 0.03, 0.12))
    if rng.uniform() < 0.4:
        for offset in rng.uniform(-0.03, 0.03, (int(rng.integers(2, 5)), 2)).tolist():
            _berry(canvas, frame(line[-1:])[0] + complex(*offset), rng.uniform(0.016, 0.026), season.berry)


def _bark(canvas: Canvas, rng: np.random.Generator, line: np.ndarray, width: float, color: Color) -> None:
    """Light above, shade below and short cracks along a branch."""
    canvas.polygon(ribbon(line, (width, width * 0.9)), shade(color, 0.66))
    canvas.polygon(ribbon(line - 0.10j * width, (width * 0.78, width * 0.70)), color)
    canvas.polygon(ribbon(line - 0.26j * width, (width * 0.30, width * 0.26)), mix(color, (255, 246, 226), 0.28))
    for along, across, length in rng.uniform(0, 1, (14, 3)).tolist():
        start = line[int(along * (len(line) - 1))] + 1j * width * (across - 0.5) * 0.8
        crack = np.array([start, start + (0.01 + 0.04 * length) * (1 + 0.05j)])
        canvas.line(crack, 0.003, shade(color, 0.55 if across > 0.4 else 0.8))


def draw_perch(canvas: Canvas, rng: np.random.Generator, season: Season, anatomy: Anatomy, slope: float) -> None:
    """The branch under the bird's feet, through the whole image, with twigs, and some more twigs behind."""
    for x, y, angle in rng.uniform(0, 1, (int(rng.integers(0, 3)), 3)).tolist():
        edge = complex(-0.02 if x < 0.5 else 1.02, y)
        _twig(canvas, rng, season, edge, (angle - 0.5) * 1.6 + (0 if x < 0.5 else math.pi))
    foot = (anatomy.feet[0] + anatomy.feet[1]) / 2
    width = rng.uniform(0.15, 0.23) * anatomy.ground.scale
    wave = rng.uniform(-0.05, 0.05, 2).tolist()
    across = [-0.1 - foot.real, 0.0, 1.1 - foot.real]
    heights = [across[0] * slope + wave[0], 0.0, across[2] * slope + wave[1]]
    middle = foot + 1j * width * 0.42
    line = open_curve(np.array([middle + complex(x, y) for x, y in zip(across, heights, strict=True)]), steps=12)
    for _ in range(int(rng.integers(1, 4))):
        root = line[int(rng.integers(3, len(line) - 3))]
        _twig(canvas, rng, season, root, -math.pi / 2 + rng.uniform(-1.1, 1.1) + math.pi * (rng.uniform() < 0.35))
    _bark(canvas, rng, line, width, season.bark)


def draw_front_leaves(
    canvas: Canvas, rng: np.random.Generator, season: Season, keep_clear: list[tuple[complex, float]]
) -> None:
    """A few leaves before everything else; one that would touch a circle of `keep_clear` is left out."""
    for x, y, angle, size in rng.uniform(0, 1, (int(rng.integers(2, 9)), 4)).tolist():
        frame = Frame(complex(x, y) * 1.1 - (0.05 + 0.05j), cmath.rect(0.11 + 0.13 * size, angle * 2 * math.pi))
        color = vary(season.leaf, rng, 0.03, 0.14)
        outline = frame(_LEAF)
        if all(np.abs(outline - center).min() > radius for center, radius in keep_clear):
            draw_leaf(canvas, frame, color)
