"""What lies out of focus behind the bird: a soft gradient, discs of light and blurred leaves and branches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from fgvc_datasets.demo.canvas import Color, mix, shade
from fgvc_datasets.demo.plumage import vary

# The backdrop holds no detail, so one small drawing serves every image size.
_SIDE = 80


@dataclass(frozen=True)
class Season:
    """The colors of a place: behind (top, bottom), out-of-focus blobs, leaves and berries in focus, bark."""

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
    """Draws a place and varies its colors."""
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
    """Translucent discs; `radius` is the mean one in pixels of the small drawing."""
    for x, y, r, opacity in rng.uniform(0, 1, (count, 4)).tolist():
        color = season.blobs[int(rng.integers(len(season.blobs)))]
        x, y, r = x * _SIDE, y * _SIDE, radius * (0.5 + r)
        draw.ellipse((x - r, y - r, x + r, y + r), fill=(*color, round(60 + 110 * opacity)))


def _far_branches(draw: ImageDraw.ImageDraw, rng: np.random.Generator, season: Season) -> None:
    """A few branches and leaf-like strokes far behind."""
    for _ in range(int(rng.integers(0, 4))):
        (x0, y0, x1, y1), width = (rng.uniform(-0.1, 1.1, 4) * _SIDE).tolist(), int(rng.integers(2, 6))
        draw.line((x0, y0, x1, y1), fill=(*shade(season.bark, 0.9), 130), width=width)
    for x, y, dx, dy in rng.uniform(0, 1, (int(rng.integers(2, 9)), 4)).tolist():
        x, y, dx, dy = x * _SIDE, y * _SIDE, (dx - 0.5) * 16, (dy - 0.5) * 16
        outline = (x - dx, y - dy, x - dy * 0.4, y + dx * 0.4, x + dx, y + dy, x + dy * 0.4, y - dx * 0.4)
        draw.polygon(outline, fill=(*mix(season.leaf, season.bottom, 0.4), 150))


def paint_backdrop(rng: np.random.Generator, season: Season) -> Image.Image:
    """A small RGB image, to be enlarged behind the scene."""
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
