"""Drawing surface and plane geometry.

Points are complex numbers, x to the right and y down. They are in image widths (0 to 1), so a scene looks the same at
every size; a `Frame` maps the coordinates of a body part to them.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

Points = npt.NDArray[np.complex128]
Color = tuple[int, int, int]
Box = tuple[int, int, int, int]

SUPERSAMPLING = 3


@dataclass(frozen=True)
class Frame:
    """A coordinate frame: `origin` plus points rotated and scaled by the complex number `turn`."""

    origin: complex
    turn: complex = 1 + 0j

    def __call__(self, points: Points) -> Points:
        """Map points of this frame, shape [n], to image widths."""
        return self.origin + self.turn * points

    def at(self, origin: complex, angle: float = 0.0, scale: float = 1.0) -> Frame:
        """Return a frame inside this one; `angle` in radians, clockwise on the screen."""
        return Frame(self.origin + self.turn * origin, self.turn * cmath.rect(scale, angle))

    @property
    def scale(self) -> float:
        """Return the length of one unit of this frame in image widths."""
        return abs(self.turn)


def points(*pairs: tuple[float, float]) -> Points:
    """Return (x, y) pairs as an array of complex numbers with shape [n]."""
    return np.array([complex(x, y) for x, y in pairs])


def arc(center: complex, radius: float, start: float, end: float, count: int) -> Points:
    """Return `count` points on a circle from angle `start` to `end`, in radians, clockwise on the screen."""
    return center + np.array([cmath.rect(radius, start + (end - start) * i / (count - 1)) for i in range(count)])


def blob(center: complex, across: float, down: float, count: int = 20) -> Points:
    """Return an ellipse with the half axes `across` and `down`, as a polygon of `count` points."""
    turns = [2 * math.pi * i / count for i in range(count)]
    return np.array([center + complex(across * math.cos(t), down * math.sin(t)) for t in turns])


@lru_cache(maxsize=64)
def _spline_weights(count: int, steps: int, closed: bool) -> npt.NDArray[np.float64]:
    """Return Catmull-Rom weights with shape [points on the curve, count]."""
    segments = count if closed else count - 1
    weights = np.zeros((segments * steps + (not closed), count))
    for row in range(len(weights)):
        segment, t = divmod(row / steps, 1.0)
        basis = (
            (-t + 2 * t**2 - t**3) / 2,
            (2 - 5 * t**2 + 3 * t**3) / 2,
            (t + 4 * t**2 - 3 * t**3) / 2,
            (t**3 - t**2) / 2,
        )
        for offset, weight in zip((-1, 0, 1, 2), basis, strict=True):
            index = int(segment) + offset
            weights[row, index % count if closed else min(max(index, 0), count - 1)] += weight
    return weights


def closed_curve(control: Points, steps: int = 5) -> Points:
    """Return a smooth outline through the control points, as a polygon of shape [n * steps]."""
    return _spline_weights(len(control), steps, True) @ control


def open_curve(control: Points, steps: int = 6) -> Points:
    """Return a smooth line through the control points, shape [(n - 1) * steps + 1]."""
    return _spline_weights(len(control), steps, False) @ control


def ribbon(line: Points, widths: Sequence[float]) -> Points:
    """Return the outline of a band along `line`; `widths` are interpolated from its start to its end."""
    along = np.gradient(line)
    normal = 1j * along / np.maximum(np.abs(along), 1e-9)
    half = np.interp(np.linspace(0, 1, len(line)), np.linspace(0, 1, len(widths)), widths) / 2
    return np.concatenate([line + normal * half, (line - normal * half)[::-1]])


def mix(first: Color, second: Color, share: float) -> Color:
    """Blend two colors, with a fraction `share` of the second."""
    r, g, b = (round(a + (c - a) * share) for a, c in zip(first, second, strict=True))
    return r, g, b


def shade(color: Color, gain: float) -> Color:
    """Make a color darker (gain below 1) or lighter."""
    r, g, b = (min(255, max(0, round(c * gain))) for c in color)
    return r, g, b


class Canvas:
    """An RGB image, drawn at `SUPERSAMPLING` times its size."""

    def __init__(self, size: int, background: Image.Image) -> None:
        self.size = size
        self.pixels = size * SUPERSAMPLING
        self.image = background.resize((self.pixels, self.pixels), Image.Resampling.BILINEAR)
        self.draw = ImageDraw.Draw(self.image)

    def to_pixels(self, outline: Points) -> list[int]:
        """Return x, y, x, y ... in supersampled pixels, the format of Pillow."""
        flat: list[int] = np.rint(outline.view(np.float64) * self.pixels).astype(np.int64).tolist()
        return flat

    def polygon(self, outline: Points, color: Color) -> None:
        """Draw a filled polygon, whose hard edges become smooth when the image is reduced."""
        self.draw.polygon(self.to_pixels(outline), fill=color)

    def line(self, line: Points, width: float, color: Color) -> None:
        """Draw a line `width` image widths thick, at least one supersampled pixel."""
        self.draw.line(self.to_pixels(line), fill=color, width=max(1, round(width * self.pixels)), joint="curve")

    def circle(self, center: complex, radius: float, color: Color) -> None:
        """Draw a filled circle; center and radius in image widths."""
        x, y, r = center.real * self.pixels, center.imag * self.pixels, radius * self.pixels
        self.draw.ellipse((round(x - r), round(y - r), round(x + r), round(y + r)), fill=color)

    def glaze(self, outline: Points, color: Color, opacity: float) -> None:
        """Blend a polygon over the image with `opacity` 0 to 1."""
        flat = self.to_pixels(outline)
        left, top = min(flat[::2]), min(flat[1::2])
        mask = Image.new("L", (max(flat[::2]) - left + 1, max(flat[1::2]) - top + 1))
        moved = [value - (top if i % 2 else left) for i, value in enumerate(flat)]
        ImageDraw.Draw(mask).polygon(moved, fill=round(255 * opacity))
        self.image.paste(color, (left, top), mask)

    def finish(self) -> Image.Image:
        """Return the image at its final size."""
        return self.image.reduce(SUPERSAMPLING)


def box_around(outline: Points, size: int) -> Box:
    """Return the smallest box (x0, y0, x1, y1) of whole pixels around the outline, clipped to an image of `size`."""
    left, right = float(outline.real.min()) * size, float(outline.real.max()) * size
    top, bottom = float(outline.imag.min()) * size, float(outline.imag.max()) * size
    x0, y0 = min(max(math.floor(left), 0), size - 1), min(max(math.floor(top), 0), size - 1)
    return x0, y0, min(max(math.ceil(right), x0 + 1), size), min(max(math.ceil(bottom), y0 + 1), size)
