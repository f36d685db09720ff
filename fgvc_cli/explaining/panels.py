"""Draw an explained image: photograph, saliency maps and masked copies side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from fgvc_cli.explaining.explanation import ExplainedImage, Explanation, Sight
from fgvc_cli.explaining.masking import Cover
from fgvc_cli.explaining.photograph import (
    LONGEST_SIDE,
    Box,
    Photograph,
    covered_photograph,
    crop_box,
    on_photograph,
    open_photograph,
    whole_box,
)
from fgvc_cli.explaining.text_layout import (
    FAINT,
    INK,
    Line,
    caption_height,
    draw_caption,
    font,
    line_height,
    shortened,
    width_of,
    wrapped,
)
from fgvc_cli.files import replacing
from fgvc_cli.formatting import percent

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage


COLORS = "inferno"
"""A color map of matplotlib's whose steps look equally large, also in gray and to the color-blind."""
LEAST_HEAT, MOST_HEAT = 0.2, 0.8
"""How much of a heat map's pixel is its color, where the map is 0 and where it is 1; the rest is the photograph, in
gray, so that no color of its own mixes in."""
MID_GRAY = 128
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
    gray = np.asarray(covered.convert("L"), np.float32)[:, :, None]
    return _framed(_colored(heat, gray), box, np.asarray(covered))


def scale_bar(width: int, height: int) -> PILImage:
    """Return the colors of a heat map over a mid gray, from 0 on the left to 1 on the right."""
    values = np.broadcast_to(np.linspace(0, 1, width, dtype=np.float32), (height, width))
    return Image.fromarray(_colored(values, np.full((height, width, 1), MID_GRAY, np.float32)))


def _colored(heat: np.ndarray, gray: np.ndarray) -> np.ndarray:
    """Lay the colors of values H,W in [0, 1] over gray values H,W,1: uint8 H,W,3."""
    colors = _palette()[np.round(255 * np.clip(heat, 0, 1)).astype(np.uint8)]
    share = (LEAST_HEAT + (MOST_HEAT - LEAST_HEAT) * heat)[:, :, None]
    blended: np.ndarray = np.round((1 - share) * gray + share * colors).astype(np.uint8)
    return blended


@cache
def _palette() -> np.ndarray:
    """Return the 256 colors of the map: uint8 256,3."""
    from matplotlib import colormaps

    colors: np.ndarray = colormaps[COLORS](np.arange(256), bytes=True)[:, :3]
    return colors


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
    for distance, color in ((2 * thick, "white"), (thick, "black")):
        draw.rectangle(
            (left - distance, top - distance, right - 1 + distance, bottom - 1 + distance), outline=color, width=thick
        )
    return image


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


PANEL_PIXELS = 80_000_000
"""Pixels that the pictures of a panel have in all at most: with many, each is drawn smaller."""
ONE_LINE = 1600
"""A panel no wider than this has all its pictures in one line, pixels."""
SHAPE = 1.5
"""Width by height that a panel of several lines comes near to."""
NARROWEST = 200
"""Pixels of a column at least, so that there is room for words below a narrow photograph."""
SMALLEST_TEXT = 13

BACKGROUND = (255, 255, 255)


@dataclass(frozen=True)
class Lettering:
    """Sizes in pixels: of the text, of a column, and of the space between columns."""

    text: int
    column: int
    gap: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "gap", self.text)


def write_panel(path: Path, explained: ExplainedImage, cover: Cover | None) -> None:
    """Draw the panel of an image and write it as a PNG file, whole or not at all.

    Args:
        path: the file.
        explained: the image.
        cover: how it was covered, or None if it was not.

    Raises:
        ImageError: the photograph cannot be read any more.
        FgvcError: the file cannot be written.
    """
    panel = draw_panel(explained, cover)
    with replacing(path) as beside:
        panel.save(beside, format="png", compress_level=4)


def draw_panel(explained: ExplainedImage, cover: Cover | None) -> PILImage:
    """Draw the panel of an image; see `write_panel`."""
    tiles = 2 * sum(len(e.sights) for e in explained.explanations)
    photograph = open_photograph(explained.subject.source, min(LONGEST_SIDE, math.isqrt(PANEL_PIXELS // tiles)))
    lines = _arranged(blocks(explained, photograph.image, cover), photograph.size)
    columns = max(sum(len(block) for block in line) for line in lines)
    sizes = _lettering(photograph.size[0], columns)
    header, footer = _header(explained), _footer(explained, photograph)
    width = columns * (sizes.column + sizes.gap) - sizes.gap
    rows = [[tile for block in line for tile in block] for line in lines]
    heights = [_row_height(row, sizes) for row in rows]
    top = _words_height(header, width, sizes)
    bottom = line_height(sizes.text) + _words_height(footer, width, sizes)
    height = top + sum(heights) + sizes.gap * len(rows) + bottom
    panel = Image.new("RGB", (width + 2 * sizes.gap, height + 2 * sizes.gap), BACKGROUND)
    draw = ImageDraw.Draw(panel)
    y = _draw_words(draw, (sizes.gap, sizes.gap), header, width, sizes, bold_first=True)
    for row, row_height in zip(rows, heights, strict=True):
        for i, tile in enumerate(row):
            _draw_tile(panel, tile, (sizes.gap + i * (sizes.column + sizes.gap), y), sizes, row)
        y += row_height + sizes.gap
    y = _draw_scale(panel, (sizes.gap, y), width, sizes)
    _draw_words(draw, (sizes.gap, y), footer, width, sizes)
    return panel


def _arranged(of_all: list[list[Block]], tile: tuple[int, int]) -> list[list[Block]]:
    """Put the blocks into lines.

    All in one line if that is not too wide. Otherwise the looks of several explanations go one way and explanations
    the other; the looks of one explanation, or the heat maps of several, are broken into lines as words are.
    """
    flat = [block for of_one in of_all for block in of_one]
    is_sequence = len(of_all) == 1 or len(flat) == len(of_all)
    if not is_sequence:
        return min(of_all, [list(looks) for looks in zip(*of_all, strict=True)], key=lambda b: _misshapen(b, tile))
    if sum(map(len, flat)) * max(tile[0], NARROWEST) <= ONE_LINE:
        return [flat]
    candidates = [[flat[i : i + n] for i in range(0, len(flat), n)] for n in range(1, len(flat) + 1)]
    return min(candidates, key=lambda lines: _misshapen(lines, tile))


def _misshapen(lines: list[list[Block]], tile: tuple[int, int]) -> float:
    """Say how far lines of tiles of (width, height) are from the shape that a panel should have."""
    columns = max(sum(len(block) for block in line) for line in lines)
    empty = 1 - sum(len(block) for line in lines for block in line) / (columns * len(lines))
    return empty + abs(math.log(columns * max(tile[0], NARROWEST) / (len(lines) * tile[1]) / SHAPE))


def _lettering(tile_width: int, columns: int) -> Lettering:
    """Choose text that can be read when the whole panel is looked at, and still fits into a column."""
    column = max(tile_width, NARROWEST)
    return Lettering(max(SMALLEST_TEXT, min(columns * column // 100, column // 16)), column)


def _row_height(row: Sequence[Tile], sizes: Lettering) -> int:
    below = max(caption_height(tile.caption, sizes.column, sizes.text) for tile in row)
    tallest = max(tile.picture.height for tile in row)
    return _titles_height(row, sizes) + tallest + sizes.text // 3 + below


def _titles_height(row: Sequence[Tile], sizes: Lettering) -> int:
    lines = max(len(wrapped(tile.title, sizes.column, sizes.text)) for tile in row)
    return lines * line_height(sizes.text) + sizes.text // 4


def _draw_tile(panel: PILImage, tile: Tile, place: tuple[int, int], sizes: Lettering, row: Sequence[Tile]) -> None:
    """Draw a tile; its title stands right above the picture, however many lines the other titles of the row have."""
    left, y = place
    draw = ImageDraw.Draw(panel)
    titles = wrapped(tile.title, sizes.column, sizes.text)
    y += _titles_height(row, sizes)
    for i, title in enumerate(reversed(titles), 1):
        draw.text((left, y - sizes.text // 4 - i * line_height(sizes.text)), title, fill=INK, font=font(sizes.text))
    panel.paste(tile.picture, (left, y))
    draw_caption(draw, (left, y + tile.picture.height + sizes.text // 3), sizes.column, tile.caption, sizes.text)


def _header(explained: ExplainedImage) -> list[str]:
    """Return the image's name, and what there is only one of: run or explainer."""
    single = [f"run {Path(explained.runs[0]).absolute().name}"] if len(explained.runs) == 1 else []
    single += [f"heat maps: {explained.explainers[0]}"] if len(explained.explainers) == 1 else []
    return [" ".join(explained.subject.name.split()), ", ".join(single)]


def _footer(explained: ExplainedImage, photograph: Photograph) -> list[str]:
    """Return what a person should know to read the pictures."""
    boxes = [crop_box(photograph.size, e.preprocessing) for e in explained.explanations]
    whole = all(whole_box(photograph.size, box) == (0, 0, *photograph.size) for box in boxes)
    framed = [] if whole else ["outlined: what the classifier sees of the photograph"]
    text = "; ".join([*framed, *([photograph.note] if photograph.note else [])])
    return [text] if text else []


def _words_height(words: Sequence[str], width: int, sizes: Lettering) -> int:
    lines = sum(len(wrapped(text, width, sizes.text)) for text in words)
    return lines * line_height(sizes.text) + sizes.text // 2


def _draw_words(
    draw: ImageDraw.ImageDraw,
    place: tuple[int, int],
    words: Sequence[str],
    width: int,
    sizes: Lettering,
    bold_first: bool = False,
) -> int:
    """Draw lines of text and return where the next thing may stand."""
    left, y = place
    for i, text in enumerate(words):
        bold = bold_first and i == 0
        fitting = [shortened(text, width, sizes.text, bold, middle=True)] if bold else wrapped(text, width, sizes.text)
        for line in fitting:
            draw.text((left, y), line, fill=INK if bold else FAINT, font=font(sizes.text, bold))
            y += line_height(sizes.text)
    return y + sizes.text // 2


def _draw_scale(panel: PILImage, place: tuple[int, int], width: int, sizes: Lettering) -> int:
    """Draw the colors from 0 to 1, with what they mean; return where the next thing may stand."""
    left, y = place
    draw = ImageDraw.Draw(panel)
    bar_width, bar_height = min(width // 3, 10 * sizes.text), sizes.text
    x = left
    draw.text((x, y), "0", fill=INK, font=font(sizes.text))
    x += width_of("0 ", sizes.text)
    panel.paste(scale_bar(bar_width, bar_height), (x, y + sizes.text // 5))
    x += bar_width + width_of(" ", sizes.text)
    draw.text((x, y), "1", fill=INK, font=font(sizes.text))
    x += width_of("1  ", sizes.text)
    text = shortened("how strongly the explainer marks it", left + width - x, sizes.text)
    draw.text((x, y), text, fill=FAINT, font=font(sizes.text))
    return y + line_height(sizes.text)
