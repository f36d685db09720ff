"""Confusion matrices: a table for few classes, an SVG image for many."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

from markupsafe import Markup

from fgvc_cli.report.page import fragment

TABLE_CLASSES = 16
"""Up to this number of classes, the matrix is a table of counts."""
CELLS = 160
"""Maximum number of cells per side of an image: neighboring classes share a cell where there are more."""
LEVELS = 5
"""Shades in the style sheet: `right1` to `right5` on the diagonal, `wrong1` to `wrong5` off it."""

Confused = Counter[tuple[str, str]]
"""Numbers of images by (true class, predicted class)."""


@dataclass(frozen=True)
class Cell:
    """A cell of a table: its number of images, and its class in the style sheet ("" for no images)."""

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


def confusion_image(confused: Confused, class_names: Sequence[str]) -> Markup:
    """Return the matrix as SVG, a unit square per cell; the shade is the fraction of the row's images."""
    per_cell = -(-len(class_names) // CELLS)
    side = -(-len(class_names) // per_cell)
    index = {name: i // per_cell for i, name in enumerate(class_names)}
    counts: Counter[tuple[int, int]] = Counter()
    for (true, predicted), images in confused.items():
        counts[index[true], index[predicted]] += images
    totals: Counter[int] = Counter()
    for (row, _), images in counts.items():
        totals[row] += images
    cells: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
    for (row, column), images in counts.items():
        cells[_shade(images / totals[row], row == column)].append((row, column))
    empty = "".join(f"M0 {row}h{side}" for row in range(side) if not totals[row])
    return fragment(
        "confusion_image.html",
        paths={shade: _path(sorted(places)) for shade, places in sorted(cells.items())},
        empty=empty,
        side=side,
        classes=len(class_names),
        per_cell=per_cell,
    )


def _shade(fraction: float, is_right: bool) -> str:
    """Return the shade of a cell; that of a mistake grows with the square root, so that rare ones are visible."""
    if fraction == 0:
        return ""
    level = max(1, round(LEVELS * (fraction if is_right else sqrt(fraction))))
    return f"{'right' if is_right else 'wrong'}{level}"


def _path(cells: Sequence[tuple[int, int]]) -> str:
    """Return a path with a horizontal stroke for each run of neighboring cells, sorted by row and column."""
    path = ""
    last_row, last_column = -1, -1
    x = y = 0  # of the pen
    length = 0
    for row, column in [*cells, (-1, -1)]:
        if length and (row, column) == (last_row, last_column + 1):
            length += 1
        else:
            if length:
                path += f"h{length}"
                x += length
            if row >= 0:
                path += f"m{column - x} {row - y}"
                x, y, length = column, row, 1
        last_row, last_column = row, column
    return path
