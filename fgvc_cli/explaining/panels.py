"""The picture of an explained image: photograph, heat maps and what was covered, side by side, with words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw

from fgvc_cli.explaining.covering import Cover
from fgvc_cli.explaining.explained import ExplainedImage
from fgvc_cli.explaining.lettering import (
    FAINT,
    INK,
    caption_height,
    draw_caption,
    font,
    line_height,
    shortened,
    width_of,
    wrapped,
)
from fgvc_cli.explaining.panel_blocks import Block, Tile, blocks
from fgvc_cli.explaining.photograph import LONGEST_SIDE, Photograph, crop_box, open_photograph, whole_box
from fgvc_cli.explaining.tiles import scale_bar
from fgvc_cli.runs.files import replacing

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

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
    """Draw the colours from 0 to 1, with what they mean; return where the next thing may stand."""
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
