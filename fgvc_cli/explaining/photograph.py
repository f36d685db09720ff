"""Between a photograph at its own resolution and the crop of it that a classifier sees.

All boxes are (left, top, right, bottom) in pixels of the photograph, and need not be whole numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from fgvc_cli.contracts import Preprocessing
from fgvc_cli.data.images import read_image

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

LONGEST_SIDE = 1600
"""Pixels that the long side of a photograph has at most when it is drawn; a longer one is made smaller."""
SMALL_SIDE = 256
"""A photograph whose long side is shorter than this is drawn with each pixel as a square of several."""

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Photograph:
    """A photograph as it is drawn: upright, RGB.

    Attributes:
        image: at its own resolution, or as `times` and `is_reduced` say.
        times: each pixel of the file is a square of so many pixels, 1 unless it is very small.
        is_reduced: whether it is drawn smaller than it is.
    """

    image: PILImage
    times: int = 1
    is_reduced: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """Width and height as drawn."""
        return self.image.size

    @property
    def note(self) -> str:
        """What a person should know of its size; nothing where a pixel of the file is a pixel here."""
        width, height = self.image.size
        if self.is_reduced:
            return f"drawn at {width} x {height} px, smaller than it is"
        if self.times > 1:
            return f"{width // self.times} x {height // self.times} px, drawn {self.times} times as large"
        return ""


def open_photograph(source: Path | np.ndarray, longest_side: int = LONGEST_SIDE) -> Photograph:
    """Read a photograph for drawing.

    Args:
        source: a file, or a uint8 array H,W,3.
        longest_side: pixels of its long side at most.

    Raises:
        ImageError: it cannot be read.
    """
    image = read_image(source, longest_side)  # of an enormous JPEG a smaller version is decoded
    longest = max(image.size)
    if longest > longest_side:
        width, height = (max(1, round(side * longest_side / longest)) for side in image.size)
        return Photograph(image.resize((width, height), Image.Resampling.LANCZOS), is_reduced=True)
    times = max(1, min(math.ceil(SMALL_SIDE / longest), longest_side // longest))
    if times > 1:
        image = image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)
    return Photograph(image, times)


def crop_box(size: tuple[int, int], preprocessing: Preprocessing) -> Box:
    """Return what a classifier sees of a photograph of (width, height); it may reach beyond the edges."""
    resized = preprocessing.resized_size(size)
    across, down = size[0] / resized[0], size[1] / resized[1]
    left, top, right, bottom = preprocessing.crop_box(resized)
    return left * across, top * down, right * across, bottom * down


def whole_box(size: tuple[int, int], box: Box) -> tuple[int, int, int, int]:
    """Return a box in whole pixels, within a photograph of (width, height)."""
    left, top, right, bottom = (round(edge) for edge in box)
    return max(0, left), max(0, top), min(size[0], right), min(size[1], bottom)


def on_photograph(values: np.ndarray, size: tuple[int, int], box: Box) -> np.ndarray:
    """Bring values of the crop to the photograph's pixels.

    Args:
        values: float or bool S,S, or uint8 S,S,3; the crop's pixels.
        size: width and height of the photograph.
        box: the crop's, see `crop_box`.

    Returns:
        H,W or H,W,3 of the same kind, 0 (or False) outside of the crop. Between the crop's pixels values are
        interpolated; a mask is True where the interpolated one is at least a half.
    """
    left, top, right, bottom = whole_box(size, box)
    canvas = np.zeros((size[1], size[0], *values.shape[2:]), values.dtype)
    if right <= left or bottom <= top:
        return canvas
    across, down = values.shape[1] / (box[2] - box[0]), values.shape[0] / (box[3] - box[1])
    part = (
        max(0.0, (left - box[0]) * across),
        max(0.0, (top - box[1]) * down),
        min(float(values.shape[1]), (right - box[0]) * across),
        min(float(values.shape[0]), (bottom - box[1]) * down),
    )
    plain = values if values.dtype == np.uint8 else values.astype(np.float32)
    resized = np.asarray(
        Image.fromarray(plain).resize((right - left, bottom - top), Image.Resampling.BILINEAR, box=part)
    )
    canvas[top:bottom, left:right] = resized >= 0.5 if values.dtype == np.bool_ else resized
    return canvas


def covered_photograph(image: PILImage, masks: np.ndarray, fills: np.ndarray, box: Box) -> PILImage:
    """Paint what a classifier was shown instead of the most marked part on a photograph.

    Args:
        image: the photograph.
        masks: bool S,S, what is covered of the crop.
        fills: uint8 S,S,3, the crop if it were covered whole.
        box: the crop's, see `crop_box`.
    """
    mask = on_photograph(masks, image.size, box)
    fill = on_photograph(fills, image.size, box)
    return Image.fromarray(np.where(mask[:, :, None], fill, np.asarray(image)))
