"""Confusion matrices: a table for few classes, a picture for many."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from PIL import Image

from fgvc_cli.report.templating import fragment

COUNTED_CLASSES = 16
"""Up to so many classes the matrix is a table with a number in each cell."""
BINS = 240
"""Cells that a picture has along a side at most: of more classes, neighbors share a cell."""
SIDE = 480
"""Pixels that a picture has along a side at least: each cell is a square of several."""
LEVELS = 5
"""Shades that the style sheet has for the cells of a table: `right1` to `right5`, `wrong1` to `wrong5`."""

Confused = Counter[tuple[str, str]]
"""Images by (true class, predicted class)."""

RIGHT, WRONG, EMPTY = (47, 128, 196), (214, 104, 32), (128, 134, 142)
"""Colors of a picture, the same on a light and on a dark page: there, as here, it is laid over the paper."""
SHADES = 60
"""Shades of right and of wrong in a picture."""
FAINTEST = 0.25
"""How much of its color the least confused cell of a picture has: rare mistakes should be seen."""


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        images: how many.
        shade: a class of the style sheet, or nothing.
    """

    images: int
    shade: str


def confusion_table(confused: Confused, class_names: Sequence[str]) -> Markup:
    """Return the matrix as a table of numbers of images; a row is a true class."""
    rows = []
    for true in class_names:
        images = [confused[true, predicted] for predicted in class_names]
        total = max(sum(images), 1)
        cells = [
            Cell(count, _shade(count / total, predicted == true))
            for predicted, count in zip(class_names, images, strict=True)
        ]
        rows.append((true, cells))
    return fragment("confusion_table.html", rows=rows, class_names=class_names)


def confusion_picture(confused: Confused, class_names: Sequence[str]) -> Markup:
    """Return the matrix as a picture; a cell's color is the share of its row's images, mistakes by the square root."""
    shares, grouped = _shares(confused, class_names)
    cells = len(shares)
    picture = _upscaled(_picture(shares), max(1, -(-SIDE // cells)))
    data = io.BytesIO()
    picture.save(data, format="png", optimize=True)
    uri = "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()
    return fragment("confusion_picture.html", uri=uri, side=picture.width, classes=len(class_names), grouped=grouped)


def _shade(share: float, is_right: bool) -> str:
    if share == 0:
        return ""
    level = max(1, round(LEVELS * (share if is_right else share**0.5)))
    return f"{'right' if is_right else 'wrong'}{level}"


def _shares(confused: Confused, class_names: Sequence[str]) -> tuple[np.ndarray, int]:
    """Return the share of each row's images in each cell (not a number: the row has none), and classes in a cell."""
    grouped = -(-len(class_names) // BINS)
    cells = -(-len(class_names) // grouped)
    place = {name: i // grouped for i, name in enumerate(class_names)}
    counts = np.zeros((cells, cells))
    for (true, predicted), images in confused.items():
        counts[place[true], place[predicted]] += images
    totals = counts.sum(axis=1, keepdims=True)
    return np.where(totals > 0, counts / np.maximum(totals, 1), np.nan), grouped


def _picture(shares: np.ndarray) -> Image.Image:
    """Paint shares as a picture of a pixel a cell: nothing is transparent, right and wrong have shades."""
    diagonal = np.eye(len(shares), dtype=bool)
    strength = np.where(diagonal, shares, np.sqrt(shares))
    levels = np.ceil(np.nan_to_num(strength) * SHADES).astype(np.uint8)
    indices = np.where((levels > 0) & ~diagonal, levels + SHADES, levels)
    indices = np.where(np.isnan(shares), 2 * SHADES + 1, indices)
    opaque = [FAINTEST + (1 - FAINTEST) * level / SHADES for level in range(1, SHADES + 1)]
    alphas = [0.0, *opaque, *opaque, 0.15]
    colors = [RIGHT, *[RIGHT] * SHADES, *[WRONG] * SHADES, EMPTY]
    picture = Image.fromarray(indices.astype(np.uint8)).convert("L")
    picture.putpalette([value for color in colors for value in color])
    picture.info["transparency"] = bytes(round(255 * alpha) for alpha in alphas)
    return picture


def _upscaled(picture: Image.Image, times: int) -> Image.Image:
    larger = picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST)
    larger.info["transparency"] = picture.info["transparency"]
    return larger
