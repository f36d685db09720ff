"""Which classes are taken for which."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from fgvc_cli.reporting.charts.matrix import COUNTED_CLASSES, Confused, confusion_picture, confusion_table
from fgvc_cli.reporting.page import Section
from fgvc_cli.reporting.predictions import confused
from fgvc_cli.reporting.scored import Scored
from fgvc_cli.reporting.templating import count, fragment

PAIRS = 12
"""Confused pairs that are named."""


@dataclass(frozen=True)
class Pair:
    """Images of a class that were taken for another one.

    Attributes:
        true, predicted: class names.
        images: how many.
        share: of the images of the true class, in [0, 1].
    """

    true: str
    predicted: str
    images: int
    share: float


def confusion_section(scored: Scored, anchor: str) -> Section:
    """Return the matrix and the pairs that are most confused."""
    matrix, names = confused(scored.predictions), scored.class_names
    pairs = most_confused(matrix)
    few = len(names) <= COUNTED_CLASSES
    drawn = confusion_table(matrix, names) if few else confusion_picture(matrix, names)
    wrong = sum(images for (true, predicted), images in matrix.items() if true != predicted)
    body = fragment("confusion.html", matrix=drawn, pairs=pairs, few=few)
    return Section(f"{anchor}confusion", "Confusion", body, said=f"{count(wrong)} mistakes")


def most_confused(matrix: Confused, pairs: int = PAIRS) -> Sequence[Pair]:
    """Return the pairs with the most mistakes, at equal numbers the larger share first."""
    totals: Counter[str] = Counter()
    for (true, _), images in matrix.items():
        totals[true] += images
    found = [
        Pair(true, predicted, images, images / totals[true])
        for (true, predicted), images in matrix.items()
        if true != predicted
    ]
    return sorted(found, key=lambda pair: (-pair.images, -pair.share, pair.true, pair.predicted))[:pairs]
