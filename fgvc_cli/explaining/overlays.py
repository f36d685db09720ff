"""Draw saliency maps and masks over a photograph at its own resolution.

All boxes are (left, top, right, bottom) in pixels of the photograph, and need not be whole numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from fgvc_cli.contracts import EncodedImage, Preprocessing
from fgvc_cli.data.images import read_image
from fgvc_cli.explaining.explanation import Explanation, OcclusionStep

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

LONGEST_SIDE = 1600
"""Maximum long side of a photograph in a panel, in pixels; longer ones are downscaled."""
SMALL_SIDE = 256
"""Photographs with a shorter long side are enlarged by a whole factor, without interpolation."""
COLORMAP = "inferno"
"""A perceptually uniform colormap of matplotlib, also in grayscale and with color blindness."""
MIN_OPACITY, MAX_OPACITY = 0.2, 0.8
"""Opacity of the colors where the saliency is 0 and where it is 1, over the photograph in grayscale."""
MID_GRAY = 128
DIMMED = 0.35
"""Opacity of the photograph outside of the crop, over white."""

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Photograph:
    """A photograph as it is drawn: upright, RGB.

    Attributes:
        image: the photograph, at its own resolution unless enlarged or downscaled.
        times: the factor by which it is enlarged.
        is_reduced: whether it is downscaled.
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
        """How it was resized; empty if it was not."""
        width, height = self.image.size
        if self.is_reduced:
            return f"photograph downscaled to {width} x {height} px"
        if self.times > 1:
            return f"photograph of {width // self.times} x {height // self.times} px, enlarged {self.times} times"
        return ""


def open_photograph(source: Path | EncodedImage | bytes | np.ndarray, longest_side: int = LONGEST_SIDE) -> Photograph:
    """Read a photograph, as `read_image` does, for drawing; a longer long side is reduced to `longest_side`.

    Raises:
        ImageError: it cannot be read.
    """
    image = read_image(source, longest_side)  # decodes a smaller version of an enormous JPEG
    longest = max(image.size)
    if longest > longest_side:
        width, height = (max(1, round(side * longest_side / longest)) for side in image.size)
        return Photograph(image.resize((width, height), Image.Resampling.LANCZOS), is_reduced=True)
    times = max(1, min(math.ceil(SMALL_SIDE / longest), longest_side // longest))
    if times > 1:
        image = image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)
    return Photograph(image, times)


def crop_box(size: tuple[int, int], preprocessing: Preprocessing) -> Box:
    """Return the classifier's crop of a photograph of (width, height); it may extend beyond the edges."""
    resized = preprocessing.resized_size(size)
    across, down = size[0] / resized[0], size[1] / resized[1]
    left, top, right, bottom = preprocessing.crop_box(resized)
    return left * across, top * down, right * across, bottom * down


def pixel_box(size: tuple[int, int], box: Box) -> tuple[int, int, int, int]:
    """Round a box to whole pixels within a photograph of (width, height)."""
    left, top, right, bottom = (round(edge) for edge in box)
    return max(0, left), max(0, top), min(size[0], right), min(size[1], bottom)


def to_photograph(values: np.ndarray, size: tuple[int, int], box: Box) -> np.ndarray:
    """Resize values of the crop to the pixels of the photograph, with bilinear interpolation.

    Args:
        values: float or bool S,S, or uint8 S,S,3; the pixels of the crop.
        size: width and height of the photograph.
        box: of the crop, see `crop_box`.

    Returns:
        H,W or H,W,3 of the same dtype, 0 (or False) outside of the crop. A mask is thresholded at 0.5.
    """
    left, top, right, bottom = pixel_box(size, box)
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


def masked_photograph(photograph: PILImage, mask: np.ndarray, fill: np.ndarray, box: Box) -> PILImage:
    """Replace the masked part of a photograph.

    Args:
        photograph: the photograph.
        mask: bool S,S, the masked pixels of the crop.
        fill: uint8 S,S,3, the crop fully masked.
        box: of the crop, see `crop_box`.
    """
    mask, fill = (to_photograph(values, photograph.size, box) for values in (mask, fill))
    return Image.fromarray(np.where(mask[:, :, None], fill, np.asarray(photograph)))


def masked_tile(photograph: PILImage, explanation: Explanation, step: OcclusionStep) -> PILImage:
    """Return the photograph with the most salient part masked, dimmed outside of the crop."""
    box = crop_box(photograph.size, explanation.preprocessing)
    return _framed(np.asarray(masked_photograph(photograph, step.mask, explanation.fill, box)), box)


def saliency_tile(photograph: PILImage, explanation: Explanation, step: OcclusionStep) -> PILImage:
    """Return the saliency map over the (masked) photograph, dimmed outside of the crop."""
    box = crop_box(photograph.size, explanation.preprocessing)
    masked = masked_photograph(photograph, step.mask, explanation.fill, box)
    saliency = to_photograph(np.nan_to_num(step.saliency).astype(np.float32), photograph.size, box)
    gray = np.asarray(masked.convert("L"), np.float32)[:, :, None]
    return _framed(_colored(saliency, gray), box, np.asarray(masked))


def color_scale(width: int, height: int) -> PILImage:
    """Return the colors of a saliency map over mid gray, from 0 on the left to 1 on the right."""
    values = np.broadcast_to(np.linspace(0, 1, width, dtype=np.float32), (height, width))
    return Image.fromarray(_colored(values, np.full((height, width, 1), MID_GRAY, np.float32)))


def _colored(saliency: np.ndarray, gray: np.ndarray) -> np.ndarray:
    """Blend the colors of saliency H,W in [0, 1] over gray H,W,1: uint8 H,W,3."""
    colors = _palette()[np.round(255 * np.clip(saliency, 0, 1)).astype(np.uint8)]
    opacity = (MIN_OPACITY + (MAX_OPACITY - MIN_OPACITY) * saliency)[:, :, None]
    blended: np.ndarray = np.round((1 - opacity) * gray + opacity * colors).astype(np.uint8)
    return blended


@cache
def _palette() -> np.ndarray:
    """Return the 256 colors of the colormap: uint8 256,3."""
    from matplotlib import colormaps

    colors: np.ndarray = colormaps[COLORMAP](np.arange(256), bytes=True)[:, :3]
    return colors


def _framed(inside: np.ndarray, box: Box, outside: np.ndarray | None = None) -> PILImage:
    """Dim everything outside of the crop and outline the crop, unless it is the whole picture.

    Args:
        inside: uint8 H,W,3.
        box: of the crop.
        outside: shown outside of the crop, uint8 H,W,3; default: `inside`.
    """
    height, width = inside.shape[:2]
    left, top, right, bottom = pixel_box((width, height), box)
    if (left, top, right, bottom) == (0, 0, width, height):
        return Image.fromarray(inside)
    around = inside if outside is None else outside
    picture = np.round(255 - DIMMED * (255 - around.astype(np.float32))).astype(np.uint8)
    picture[top:bottom, left:right] = inside[top:bottom, left:right]
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    thick = max(1, round(min(width, height) / 200))
    # Just outside of the crop, to hide none of its pixels; black within white is visible on any background.
    for distance, color in ((2 * thick, "white"), (thick, "black")):
        draw.rectangle(
            (left - distance, top - distance, right - 1 + distance, bottom - 1 + distance), outline=color, width=thick
        )
    return image
