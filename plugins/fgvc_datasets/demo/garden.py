"""The garden around the bird: a blurred backdrop, perch, twigs and leaves in focus, light and camera."""

from __future__ import annotations

import cmath
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from fgvc_datasets.demo.anatomy import Anatomy, vary
from fgvc_datasets.demo.canvas import Canvas, Color, Frame, closed_curve, mix, open_curve, points, ribbon, shade

# The backdrop holds no detail, so one small drawing serves every image size.
_SIDE = 80


@dataclass(frozen=True)
class Season:
    """The colors of a place: backdrop (top, bottom), out-of-focus blobs, leaves and berries in focus, bark."""

    top: Color
    bottom: Color
    blobs: tuple[Color, ...]
    leaf: Color
    berry: Color
    bark: Color


_SEASONS: tuple[Season, ...] = (
    Season((176, 202, 150), (92, 132, 84), ((126, 166, 100), (206, 220, 160), (70, 112, 76)),
           (104, 148, 70), (196, 62, 58), (112, 90, 72)),
    Season((236, 208, 158), (164, 116, 76), ((214, 158, 88), (240, 220, 170), (142, 100, 74)),
           (196, 124, 54), (150, 44, 48), (104, 80, 64)),
    Season((206, 220, 230), (138, 156, 168), ((176, 194, 206), (226, 232, 232), (122, 142, 150)),
           (122, 146, 122), (200, 76, 70), (118, 106, 98)),
    Season((242, 218, 216), (176, 168, 150), ((234, 190, 194), (250, 236, 230), (150, 164, 130)),
           (142, 166, 102), (216, 104, 128), (122, 96, 86)),
    Season((188, 196, 214), (104, 112, 124), ((148, 154, 180), (214, 206, 214), (92, 104, 112)),
           (98, 124, 108), (108, 86, 150), (98, 88, 88)),
    Season((222, 226, 188), (132, 146, 108), ((186, 198, 128), (240, 238, 200), (110, 134, 104)),
           (136, 156, 62), (228, 158, 56), (126, 104, 80)),
)  # fmt: skip


def sample_season(rng: np.random.Generator) -> Season:
    """Sample a place with varied colors."""
    base = _SEASONS[int(rng.integers(len(_SEASONS)))]
    return Season(
        top=vary(base.top, rng, 0.02, 0.06),
        bottom=vary(base.bottom, rng, 0.02, 0.10),
        blobs=tuple(vary(color, rng, 0.02, 0.08) for color in base.blobs),
        leaf=vary(base.leaf, rng, 0.03, 0.10),
        berry=vary(base.berry, rng, 0.03, 0.08),
        bark=vary(base.bark, rng, 0.02, 0.12),
    )


def _discs(draw: ImageDraw.ImageDraw, rng: np.random.Generator, season: Season, count: int, radius: float) -> None:
    """Draw translucent discs with a mean `radius` in pixels of the small drawing."""
    for x, y, r, opacity in rng.uniform(0, 1, (count, 4)).tolist():
        color = season.blobs[int(rng.integers(len(season.blobs)))]
        x, y, r = x * _SIDE, y * _SIDE, radius * (0.5 + r)
        draw.ellipse((x - r, y - r, x + r, y + r), fill=(*color, round(60 + 110 * opacity)))


def _far_branches(draw: ImageDraw.ImageDraw, rng: np.random.Generator, season: Season) -> None:
    """Draw a few distant branches and leaf-like strokes."""
    for _ in range(int(rng.integers(0, 4))):
        (x0, y0, x1, y1), width = (rng.uniform(-0.1, 1.1, 4) * _SIDE).tolist(), int(rng.integers(2, 6))
        draw.line((x0, y0, x1, y1), fill=(*shade(season.bark, 0.9), 130), width=width)
    for x, y, dx, dy in rng.uniform(0, 1, (int(rng.integers(2, 9)), 4)).tolist():
        x, y, dx, dy = x * _SIDE, y * _SIDE, (dx - 0.5) * 16, (dy - 0.5) * 16
        outline = (x - dx, y - dy, x - dy * 0.4, y + dx * 0.4, x + dx, y + dy, x + dy * 0.4, y - dx * 0.4)
        draw.polygon(outline, fill=(*mix(season.leaf, season.bottom, 0.4), 150))


def paint_backdrop(rng: np.random.Generator, season: Season) -> Image.Image:
    """Paint a small RGB image, which is enlarged behind the scene."""
    image = Image.new("RGB", (1, 2), season.top)
    image.putpixel((0, 1), season.bottom)
    image = image.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)
    draw = ImageDraw.Draw(image, "RGBA")
    _discs(draw, rng, season, 9, 16)
    image = image.filter(ImageFilter.BoxBlur(7))
    draw = ImageDraw.Draw(image, "RGBA")
    _far_branches(draw, rng, season)
    image = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(1.6, 3.0))))
    draw = ImageDraw.Draw(image, "RGBA")
    _discs(draw, rng, season, int(rng.integers(3, 12)), 5)
    return image.filter(ImageFilter.GaussianBlur(1.3))


_LEAF = closed_curve(points((0, 0), (0.22, -0.17), (0.58, -0.20), (1, 0), (0.58, 0.18), (0.22, 0.15)))
_LEAF_HALF = closed_curve(points((0, 0), (0.22, 0.15), (0.58, 0.18), (1, 0), (0.6, 0.02), (0.25, 0.01)))
_VEINS = [points((0.06, 0), (0.5, 0.012), (0.96, 0))] + [
    points((x, 0.0), (x + 0.14, side * 0.11)) for x in (0.25, 0.45, 0.63) for side in (-1, 1)
]


def draw_leaf(canvas: Canvas, frame: Frame, color: Color) -> None:
    """Draw a leaf from (0, 0) to (1, 0) of `frame`, one half in the shade."""
    canvas.polygon(frame(_LEAF), color)
    canvas.polygon(frame(_LEAF_HALF), shade(color, 0.84))
    for width, vein in zip((0.035, *[0.018] * 6), _VEINS, strict=True):
        canvas.line(frame(vein), width * frame.scale, mix(color, (250, 250, 220), 0.3))


def _berry(canvas: Canvas, center: complex, radius: float, color: Color) -> None:
    canvas.circle(center, radius, shade(color, 0.72))
    canvas.circle(center - radius * complex(0.10, 0.12), radius * 0.84, color)
    canvas.circle(center - radius * complex(0.32, 0.36), radius * 0.26, mix(color, (255, 255, 255), 0.7))


def _twig(canvas: Canvas, rng: np.random.Generator, season: Season, root: complex, angle: float) -> None:
    """Draw a twig from `root` in the direction `angle`, with leaves or berries."""
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
    """Draw a branch with light above, shade below and short cracks."""
    canvas.polygon(ribbon(line, (width, width * 0.9)), shade(color, 0.66))
    canvas.polygon(ribbon(line - 0.10j * width, (width * 0.78, width * 0.70)), color)
    canvas.polygon(ribbon(line - 0.26j * width, (width * 0.30, width * 0.26)), mix(color, (255, 246, 226), 0.28))
    for along, across, length in rng.uniform(0, 1, (14, 3)).tolist():
        start = line[int(along * (len(line) - 1))] + 1j * width * (across - 0.5) * 0.8
        crack = np.array([start, start + (0.01 + 0.04 * length) * (1 + 0.05j)])
        canvas.line(crack, 0.003, shade(color, 0.55 if across > 0.4 else 0.8))


def draw_perch(canvas: Canvas, rng: np.random.Generator, season: Season, anatomy: Anatomy, slope: float) -> None:
    """Draw the branch under the bird's feet across the image, with twigs, and more twigs behind."""
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
    """Draw a few leaves in front, without those that would touch a circle of `keep_clear`."""
    for x, y, angle, size in rng.uniform(0, 1, (int(rng.integers(2, 9)), 4)).tolist():
        frame = Frame(complex(x, y) * 1.1 - (0.05 + 0.05j), cmath.rect(0.11 + 0.13 * size, angle * 2 * math.pi))
        color = vary(season.leaf, rng, 0.03, 0.14)
        outline = frame(_LEAF)
        if all(np.abs(outline - center).min() > radius for center, radius in keep_clear):
            draw_leaf(canvas, frame, color)


def light_direction(rng: np.random.Generator) -> complex:
    """Sample a unit vector toward the light, which comes from above."""
    return cmath.rect(1.0, -math.pi / 2 + rng.uniform(-0.9, 0.9))


def _light_field(rng: np.random.Generator, size: int) -> np.ndarray:
    """Return the gain per pixel, shape [size, size]: brightness, a gradient, dappled shade and a vignette."""
    side = 7
    axis = np.linspace(-1, 1, side)
    slope_x, slope_y = rng.uniform(-0.13, 0.13, 2)
    dapple = rng.uniform(-1, 1, (side, side)) * rng.uniform(0.0, 0.16)
    vignette = -rng.uniform(0.0, 0.13) * (axis[:, None] ** 2 + axis[None, :] ** 2)
    field = rng.uniform(0.9, 1.12) + slope_x * axis[None, :] + slope_y * axis[:, None] + dapple + vignette
    smooth = Image.fromarray(field.astype(np.float32)).resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(smooth)


def expose(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Light and tint the scene, and add slight blur and sensor noise; RGB of the same size."""
    gain = _light_field(rng, image.width)
    warmth, tint = rng.uniform(-0.06, 0.06), rng.uniform(-0.02, 0.02)
    blur, noise = rng.uniform(0.0, 0.55), rng.uniform(0.8, 3.4)
    if blur > 0.2:
        image = image.filter(ImageFilter.GaussianBlur(blur * image.width / 128))
    balance = np.array([1 + warmth, 1 + tint, 1 - warmth], dtype=np.float32)
    pixels = np.asarray(image, dtype=np.float32) * (gain[..., None] * balance)  # [size, size, 3]
    pixels += rng.standard_normal(pixels.shape, dtype=np.float32) * np.float32(noise)
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))
