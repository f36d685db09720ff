"""The pictures of a panel, each the size of the photograph: covered photographs and heat maps."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from fgvc_cli.explaining.explained import Explanation, Sight
from fgvc_cli.explaining.photograph import Box, covered_photograph, crop_box, on_photograph, whole_box

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

COLOURS = "inferno"
"""A colour map of matplotlib's whose steps look equally large, also in grey and to the colour-blind."""
LEAST_HEAT, MOST_HEAT = 0.2, 0.8
"""How much of a heat map's pixel is its colour, where the map is 0 and where it is 1; the rest is the photograph, in
grey, so that no colour of its own mixes in."""
MID_GREY = 128
DIMMED = 0.35
"""How much is left of what lies outside of the crop; the rest is white."""


def cover_tile(photograph: PILImage, explanation: Explanation, sight: Sight) -> PILImage:
    """Return the photograph with the most marked part covered, what lies outside of the crop dimmed."""
    box = crop_box(photograph.size, explanation.preprocessing)
    covered = covered_photograph(photograph, sight.mask, explanation.fill, box)
    return _framed(np.asarray(covered), box)


def heat_tile(photograph: PILImage, explanation: Explanation, sight: Sight) -> PILImage:
    """Return the heat map over the (covered) photograph, what lies outside of the crop dimmed."""
    box = crop_box(photograph.size, explanation.preprocessing)
    covered = covered_photograph(photograph, sight.mask, explanation.fill, box)
    heat = on_photograph(np.nan_to_num(sight.map).astype(np.float32), photograph.size, box)
    grey = np.asarray(covered.convert("L"), np.float32)[:, :, None]
    return _framed(_coloured(heat, grey), box, np.asarray(covered))


def scale_bar(width: int, height: int) -> PILImage:
    """Return the colours of a heat map over a mid grey, from 0 on the left to 1 on the right."""
    values = np.broadcast_to(np.linspace(0, 1, width, dtype=np.float32), (height, width))
    return Image.fromarray(_coloured(values, np.full((height, width, 1), MID_GREY, np.float32)))


def _coloured(heat: np.ndarray, grey: np.ndarray) -> np.ndarray:
    """Lay the colours of values H,W in [0, 1] over grey values H,W,1: uint8 H,W,3."""
    colours = _palette()[np.round(255 * np.clip(heat, 0, 1)).astype(np.uint8)]
    share = (LEAST_HEAT + (MOST_HEAT - LEAST_HEAT) * heat)[:, :, None]
    blended: np.ndarray = np.round((1 - share) * grey + share * colours).astype(np.uint8)
    return blended


@cache
def _palette() -> np.ndarray:
    """Return the 256 colours of the map: uint8 256,3."""
    from matplotlib import colormaps

    colours: np.ndarray = colormaps[COLOURS](np.arange(256), bytes=True)[:, :3]
    return colours


def _framed(inside: np.ndarray, box: Box, outside: np.ndarray | None = None) -> PILImage:
    """Dim what lies outside of the crop, and draw a line round it where it is not the whole picture.

    Args:
        inside: uint8 H,W,3.
        box: the crop.
        outside: what is dimmed outside of the crop, uint8 H,W,3; `inside` if it is the same.
    """
    height, width = inside.shape[:2]
    left, top, right, bottom = whole_box((width, height), box)
    if (left, top, right, bottom) == (0, 0, width, height):
        return Image.fromarray(inside)
    around = inside if outside is None else outside
    picture = np.round(255 - DIMMED * (255 - around.astype(np.float32))).astype(np.uint8)
    picture[top:bottom, left:right] = inside[top:bottom, left:right]
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    thick = max(1, round(min(width, height) / 200))
    # Just outside of the crop, so that none of its pixels is hidden: dark within light, to be seen on any ground.
    for distance, colour in ((2 * thick, "white"), (thick, "black")):
        draw.rectangle(
            (left - distance, top - distance, right - 1 + distance, bottom - 1 + distance), outline=colour, width=thick
        )
    return image
