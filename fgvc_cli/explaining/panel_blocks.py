"""What stands in a panel: pictures, in blocks that stay side by side, and the words to each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fgvc_cli.display.evaluation_tables import percent
from fgvc_cli.explaining.covering import Cover
from fgvc_cli.explaining.explained import ExplainedImage, Explanation, Sight
from fgvc_cli.explaining.lettering import Line
from fgvc_cli.explaining.tiles import cover_tile, heat_tile

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage


@dataclass(frozen=True)
class Tile:
    """A picture of the panel, the words above and those below it."""

    title: str
    picture: PILImage
    caption: Sequence[Line] = ()


Block = list[Tile]
"""Tiles that stay side by side."""


def blocks(explained: ExplainedImage, photograph: PILImage, cover: Cover | None) -> list[list[Block]]:
    """Return for each explanation its blocks: a picture and the heat map over it, for each look.

    Without covering, the photograph is there once, and each heat map is a block.
    """
    several = len(explained.explanations) > 1
    labels = explained.labels() if several else ["heat map"]
    plain = Tile("photograph", photograph)
    if cover is None:
        maps = [
            [Tile(label, heat_tile(photograph, e, e.sights[0]), _first_caption(e.sights[0], explained.subject.true))]
            for label, e in zip(labels, explained.explanations, strict=True)
        ]
        return [[[plain]], *([block] for block in maps)] if several else [[[plain, *maps[0]]]]
    return [
        [
            _block(explanation, step, photograph, cover, explained.subject.true, label, several)
            for step in range(len(explanation.sights))
        ]
        for label, explanation in zip(labels, explained.explanations, strict=True)
    ]


def _block(
    explanation: Explanation,
    step: int,
    photograph: PILImage,
    cover: Cover,
    true: str | None,
    label: str,
    is_one_of_several: bool,
) -> Block:
    """Return the photograph as it was shown at that step, and the heat map over it."""
    sight = explanation.sights[step]
    heat = heat_tile(photograph, explanation, sight)
    if step == 0:
        return [Tile("photograph", photograph), Tile(label, heat, _first_caption(sight, true))]
    word = "still predicted" if sight.predicted == explanation.sights[step - 1].predicted else "now predicted"
    whose = f", {label}" if is_one_of_several else ""  # last: a long name may be cut short
    title = f"step {step}: {percent(sight.covered)} covered ({cover.fill}){whose}"
    of = [Line("map of", percent(sight.explained_probability), sight.explained), *_empty(sight)]
    return [
        Tile(title, cover_tile(photograph, explanation, sight), _caption(word, sight, true)),
        Tile(f"step {step}: {label}", heat, of),
    ]


def _first_caption(sight: Sight, true: str | None) -> list[Line]:
    lines = _caption("predicted", sight, true)
    if sight.explained not in (sight.predicted, true):
        lines.append(Line("map of", percent(sight.explained_probability), sight.explained))
    return [*lines, *_empty(sight)]


def _empty(sight: Sight) -> list[Line]:
    """Say that a map marks nothing, which its picture alone would leave in doubt."""
    return [] if sight.map.any() else [Line("nothing is marked")]


def _caption(word: str, sight: Sight, true: str | None) -> list[Line]:
    """Say what was predicted, and the true class if it is known."""
    lines = [Line(word, percent(sight.probability), sight.predicted)]
    if true == sight.predicted:
        lines.append(Line("true class", "the same"))
    elif true is not None:
        lines.append(Line("true class", percent(sight.true_probability), true))
    return lines
