"""Pictures embedded in the page, within a size limit."""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fgvc_cli.explaining.overlays import color_scale

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

LONGEST_SIDE = 256
"""Longest side in pixels: pictures are shown at about half of it, which suits displays with two pixels per point."""
MAX_BYTES = 5_800
"""Size limit of a picture before base64 encoding: the 42 pictures of a run take 325 kB of the page."""
QUALITIES = (80, 70, 60, 50)
"""WebP qualities, tried in this order until the picture is small enough."""
TOO_LARGE = 2.0
"""Multiple of the limit above which lower qualities are not tried and the picture is scaled down."""
SHRINK = 0.8
"""Largest factor by which a picture is scaled down at a time."""

ROWS, COLUMNS = ("upper", "", "lower"), ("left", "", "right")


@dataclass(frozen=True)
class Picture:
    """A picture of the page: its data URI, size in pixels and alternative text."""

    uri: str
    width: int
    height: int
    alt: str


def picture(image: PILImage, alt: str) -> Picture:
    """Encode an image as WebP of at most `MAX_BYTES`."""
    return _picture(_webp(image), "webp", image, alt)


def heat_scale() -> Picture:
    """Return the color scale of heat maps, from 0 to 1."""
    bar, data = color_scale(160, 8), io.BytesIO()
    bar.save(data, format="png", optimize=True)
    return _picture(data.getvalue(), "png", bar, "from dark violet at 0 over red to pale yellow at 1")


def peak_text(saliency: np.ndarray) -> str:
    """Describe where a map S,S in [0, 1] peaks: "strongest in the middle", "strongest at the upper left"."""
    marked = np.nan_to_num(saliency)
    if not marked.any():
        return "blank"
    marked = np.where(marked >= 0.5 * marked.max(), marked, 0)
    side = len(marked)
    positions = (np.arange(side) + 0.5) / side
    y, x = (float((marked.sum(axis=axis) * positions).sum() / marked.sum()) for axis in (1, 0))
    words = " ".join(word for word in (ROWS[min(int(3 * y), 2)], COLUMNS[min(int(3 * x), 2)]) if word)
    return f"strongest at the {words}" if words else "strongest in the middle"


def _picture(data: bytes, format: str, image: PILImage, alt: str) -> Picture:
    uri = f"data:image/{format};base64,{base64.b64encode(data).decode()}"
    return Picture(uri, image.width, image.height, alt)


def _webp(image: PILImage) -> bytes:
    while True:
        for quality in QUALITIES:
            data = io.BytesIO()
            image.save(data, format="webp", quality=quality, method=4)
            if data.tell() <= MAX_BYTES:
                return data.getvalue()
            if data.tell() > TOO_LARGE * MAX_BYTES:
                break
        scale = min(SHRINK, math.sqrt(MAX_BYTES / data.tell()))
        image = image.resize((max(1, round(scale * image.width)), max(1, round(scale * image.height))))
