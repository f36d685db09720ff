"""Pictures embedded in the page, within a size limit."""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

LONGEST_SIDE = 256
"""Pixels of the long side: a picture is shown at half of that or a little more, and screens have two pixels to one."""
MOST_BYTES = 5_800
"""Bytes of a picture at most, a third more as text: the 42 of a run take 325 kB of the page."""
QUALITIES = (80, 70, 60, 50)
"""What WebP is asked for, until the picture is small enough."""
TOO_LARGE = 2.0
"""Times too large: a picture that is more than that will not be saved by a lower quality."""
SHRINK = 0.8
"""How much smaller a picture becomes, at least, that is too large for all of them."""

ROWS, COLUMNS = ("upper", "", "lower"), ("left", "", "right")


@dataclass(frozen=True)
class Picture:
    """A picture of the page.

    Attributes:
        uri: the picture itself, as a data URI.
        width, height: in pixels.
        alt: what is to be seen.
    """

    uri: str
    width: int
    height: int
    alt: str


def picture(image: PILImage, alt: str) -> Picture:
    """Encode an image for the page; what `alt` says stands for it where it cannot be seen."""
    data = _encoded(image)
    return Picture("data:image/webp;base64," + base64.b64encode(data).decode(), image.width, image.height, alt)


def strongest(saliency: np.ndarray) -> str:
    """Say where a map is strongest: "in the middle", "at the upper left".

    Args:
        saliency: S,S in [0, 1].
    """
    marked = np.nan_to_num(saliency)
    if not marked.any():
        return "marking nothing"
    marked = np.where(marked >= 0.5 * marked.max(), marked, 0)
    side = len(marked)
    places = (np.arange(side) + 0.5) / side
    down, across = (float((marked.sum(axis=axis) * places).sum() / marked.sum()) for axis in (1, 0))
    words = " ".join(word for word in (ROWS[min(int(3 * down), 2)], COLUMNS[min(int(3 * across), 2)]) if word)
    return f"strongest at the {words}" if words else "strongest in the middle"


def _encoded(image: PILImage) -> bytes:
    while True:
        for quality in QUALITIES:
            data = io.BytesIO()
            image.save(data, format="webp", quality=quality, method=4)
            if data.tell() <= MOST_BYTES:
                return data.getvalue()
            if data.tell() > TOO_LARGE * MOST_BYTES:
                break
        scale = min(SHRINK, math.sqrt(MOST_BYTES / data.tell()))
        image = image.resize((max(1, round(scale * image.width)), max(1, round(scale * image.height))))
