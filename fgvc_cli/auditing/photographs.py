"""What is measured on the pixels of each photograph: perceptual hashes, sharpness and exposure."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from fgvc_cli.errors import FgvcError

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

HASH_SIDE = 16
"""Side of the perceptual hash: 256 bits. With 64, photographs of one shelf differ in as few bits as altered copies."""

LONGEST_SIDE = 256
"""Sharpness and exposure are those of the image at most this large: what matters is what a network sees."""

TILES = 4
"""Sharpness is that of the sharpest of 4 x 4 tiles, so that a blurred background does not count."""


THUMBNAIL = 32
"""Short side of the thumbnails in pixels."""

MAX_ASPECT_RATIO = 3.0
"""Images with a larger ratio of long to short side have a thumbnail of their middle."""


class Measures(NamedTuple):
    """Measures of one photograph.

    Attributes:
        hash, mirrored_hash: bool `HASH_SIDE`², of the image and of its mirror image.
        sharpness: log10 of the variance of the Laplacian in the sharpest tile, divided by the variance of the image.
        highlights: 99th percentile of the luminance, in [0, 1].
        lower_quartile: 25th percentile of the luminance, in [0, 1].
        thumbnail: gray uint8 H,W with a short side of `THUMBNAIL` pixels.
    """

    hash: np.ndarray
    mirrored_hash: np.ndarray
    sharpness: float
    highlights: float
    lower_quartile: float
    thumbnail: np.ndarray


def require_packages() -> None:
    """Raise `FgvcError` if a package of the extra `audit` is not installed."""
    missing = [name for name in ("cleanlab", "imagehash") if find_spec(name) is None]
    if missing:
        raise FgvcError(f"an audit needs {' and '.join(missing)}: pip install 'fgvc-cli[audit]'")


def measure(image: PILImage) -> Measures:
    """Measure an RGB image.

    Reference: Pech-Pacheco et al. 2000, Diatom autofocusing in brightfield microscopy (variance of the Laplacian);
    the hashes are pHash's, by the package ImageHash.
    """
    from imagehash import phash

    gray = image.convert("L")
    flipped = gray.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    hash, mirrored = (phash(each, HASH_SIDE).hash.ravel() for each in (gray, flipped))
    thumbnail = _thumbnail(gray)
    gray.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    values = np.asarray(gray, np.float32)  # (H, W)
    highlights, lower_quartile = np.percentile(values, (99, 25)) / 255
    return Measures(hash, mirrored, _sharpness(values), float(highlights), float(lower_quartile), thumbnail)


def _thumbnail(gray: PILImage) -> np.ndarray:
    short = min(gray.size)
    width, height = (min(side, round(MAX_ASPECT_RATIO * short)) for side in gray.size)
    left, top = (gray.width - width) // 2, (gray.height - height) // 2
    size = round(THUMBNAIL * width / short), round(THUMBNAIL * height / short)
    box = (left, top, left + width, top + height)
    return np.asarray(gray.resize(size, Image.Resampling.BOX, box))


def _sharpness(values: np.ndarray) -> float:
    """Return the sharpness of gray values H,W; infinite for an image without contrast or under 3 pixels."""
    inner = values[1:-1, 1:-1]
    if not inner.size or values.var() < 1:
        return float("inf")
    laplacian = values[:-2, 1:-1] + values[2:, 1:-1] + values[1:-1, :-2] + values[1:-1, 2:] - 4 * inner
    rows = np.array_split(laplacian, min(TILES, len(laplacian)))
    tiles = [tile for row in rows for tile in np.array_split(row, min(TILES, row.shape[1]), axis=1)]
    return float(np.log10(max(tile.var() for tile in tiles) / values.var() + 1e-6))
