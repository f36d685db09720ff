"""Draw a panel: photograph, saliency maps and masked copies side by side, with captions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

from fgvc_cli.errors import UsageError
from fgvc_cli.explaining.explanation import ExplainedImage, Explanation, OcclusionStep
from fgvc_cli.explaining.overlays import (
    LONGEST_SIDE,
    Photograph,
    color_scale,
    crop_box,
    masked_tile,
    open_photograph,
    pixel_box,
    saliency_tile,
)
from fgvc_cli.files import check_writable, distinct_names, replacing
from fgvc_cli.formatting import percent

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

PANEL_SUFFIX = ".explain.png"
PANEL_PIXELS = 80_000_000
"""Maximum number of pixels of all pictures of a panel; if there are many, each is drawn smaller."""
ONE_ROW = 1600
"""Maximum width of a panel with a single row of pictures, in pixels."""
ASPECT = 1.5
"""Width by height that a panel of several rows approximates."""
MIN_COLUMN = 200
"""Minimum width of a column in pixels, so that captions fit below a narrow photograph."""
MIN_TEXT = 13
ELLIPSIS = "…"
BREAKS = " -_/."
"""Characters after which a line may break; a name without any is broken anywhere."""
INK, FAINT, BACKGROUND = (34, 39, 46), (104, 112, 122), (255, 255, 255)


@cache
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Return DejaVu Sans, which comes with matplotlib and covers most scripts, at a size in pixels."""
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name, size)


def line_height(size: int) -> int:
    """Return the distance between lines of text of a size, in pixels."""
    return round(1.3 * size)


def text_width(text: str, size: int, bold: bool = False) -> int:
    """Return the width of a line of text in pixels."""
    return round(font(size, bold).getlength(text) + 0.5)


def wrapped(text: str, width: int, size: int, bold: bool = False, lines: int = 2) -> list[str]:
    """Break text into at most `lines` lines of at most `width` pixels; the last one is truncated if necessary."""
    rest = " ".join(text.split())
    found: list[str] = []
    while rest and len(found) < lines - 1 and text_width(rest, size, bold) > width:
        end = next((n for n in range(len(rest), 1, -1) if text_width(rest[:n].rstrip(), size, bold) <= width), 1)
        breaks = [n for n in range(1, end + 1) if rest[n - 1] in BREAKS]
        end = breaks[-1] if breaks and breaks[-1] > end // 3 else end
        found.append(rest[:end].rstrip())
        rest = rest[end:].lstrip()
    return [*found, truncated(rest, width, size, bold)] if rest else found


def truncated(text: str, width: int, size: int, bold: bool = False, middle: bool = False) -> str:
    """Truncate text to `width` pixels: its end, or its middle, is replaced by an ellipsis."""
    if text_width(text, size, bold) <= width:
        return text

    def cut(kept: int) -> str:
        tail = kept // 2 if middle else 0
        head = text[: kept - tail]
        return (head if middle else head.rstrip()) + ELLIPSIS + (text[len(text) - tail :] if tail else "")

    return next((cut(n) for n in range(len(text) - 1, 0, -1) if text_width(cut(n), size, bold) <= width), "")


@dataclass(frozen=True)
class CaptionLine:
    """A line of a caption: a label on the left, in gray, and a figure on the right, in bold.

    Attributes:
        label: such as "predicted".
        figure: a probability, as text.
        name: written below, on at most two lines.
    """

    label: str
    figure: str = ""
    name: str = ""

    def name_lines(self, width: int, size: int) -> list[str]:
        """Break the name into lines."""
        return wrapped(self.name, width, size, bold=True) if self.name else []


@dataclass(frozen=True)
class Tile:
    """A picture of the panel, with the title above and the caption below it."""

    title: str
    picture: PILImage
    caption: Sequence[CaptionLine] = ()


Block = list[Tile]
"""Tiles that stay side by side."""


def blocks(explained: ExplainedImage, photograph: PILImage) -> list[list[Block]]:
    """Return the blocks of each explanation: a picture and the saliency map over it, for each occlusion step.

    Without occlusion steps the photograph is drawn once, and each saliency map is a block. If two classes are compared,
    the maps of the other class and of the difference are the second block.
    """
    several = len(explained.explanations) > 1
    labels = explained.labels() if several else ["saliency map"]
    true_class = explained.input.true_class
    labeled = list(zip(labels, explained.explanations, strict=True))
    fill = "" if explained.masking is None else explained.masking.fill
    if any(e.contrast for e in explained.explanations):
        return [
            [
                *_contrast_blocks(e, photograph, true_class, label if several else ""),
                *(_block(e, step, photograph, fill, true_class, label, several) for step in range(1, len(e.steps))),
            ]
            for label, e in labeled
        ]
    if explained.masking is None:
        plain = Tile("photograph", photograph)
        maps = [
            Tile(label, saliency_tile(photograph, e, e.steps[0]), _first_caption(e.steps[0], true_class))
            for label, e in labeled
        ]
        return [[[plain]], *([[tile]] for tile in maps)] if several else [[[plain, *maps]]]
    return [
        [_block(e, step, photograph, fill, true_class, label, several) for step in range(len(e.steps))]
        for label, e in labeled
    ]


def _contrast_blocks(explanation: Explanation, photograph: PILImage, true_class: str | None, label: str) -> list[Block]:
    """Return the photograph and the map of the class, and the maps of the other class and of the difference."""
    assert explanation.contrast is not None
    own, other = explanation.contrast
    maps = [saliency_tile(photograph, explanation, step) for step in (own, other, explanation.steps[0])]
    of_other = CaptionLine("map of", percent(other.target_probability), other.target)
    why, suffix = _of_difference((own, other)), f", {label}" if label else ""
    return [
        [Tile("photograph", photograph), Tile(f"saliency map{suffix}", maps[0], _first_caption(own, true_class))],
        [
            Tile(f"the other class{suffix}", maps[1], [of_other, *_zero_note(other)]),
            Tile(f"why not the other{suffix}", maps[2], [why, *_zero_note(explanation.steps[0])]),
        ],
    ]


def _of_difference(contrast: tuple[OcclusionStep, OcclusionStep]) -> CaptionLine:
    own, other = contrast
    return CaptionLine("map of the difference", "", f"{own.target}, not {other.target}")


def _block(
    explanation: Explanation,
    number: int,
    photograph: PILImage,
    fill: str,
    true_class: str | None,
    label: str,
    is_one_of_several: bool,
) -> Block:
    """Return the photograph as it was classified at a step, and the saliency map over it."""
    step = explanation.steps[number]
    saliency = saliency_tile(photograph, explanation, step)
    if number == 0:
        return [Tile("photograph", photograph), Tile(label, saliency, _first_caption(step, true_class))]
    verb = "still predicted" if step.predicted == explanation.steps[number - 1].predicted else "now predicted"
    whose = f", {label}" if is_one_of_several else ""  # last, because a long name may be truncated
    title = f"step {number}: {percent(step.masked)} masked ({fill}){whose}"
    target = CaptionLine("map of", percent(step.target_probability), step.target)
    if explanation.contrast is not None:
        target = _of_difference(explanation.contrast)
    return [
        Tile(title, masked_tile(photograph, explanation, step), _caption(verb, step, true_class)),
        Tile(f"step {number}: {label}", saliency, [target, *_zero_note(step)]),
    ]


def _first_caption(step: OcclusionStep, true_class: str | None) -> list[CaptionLine]:
    lines = _caption("predicted", step, true_class)
    if step.target not in (step.predicted, true_class):
        lines.append(CaptionLine("map of", percent(step.target_probability), step.target))
    return [*lines, *_zero_note(step)]


def _caption(verb: str, step: OcclusionStep, true_class: str | None) -> list[CaptionLine]:
    lines = [CaptionLine(verb, percent(step.probability), step.predicted)]
    if true_class == step.predicted:
        lines.append(CaptionLine("true class", "the same"))
    elif true_class is not None:
        lines.append(CaptionLine("true class", percent(step.true_probability), true_class))
    return lines


def _zero_note(step: OcclusionStep) -> list[CaptionLine]:
    return [] if step.saliency.any() else [CaptionLine("the map is flat")]


def write_panel(path: Path, explained: ExplainedImage) -> None:
    """Draw the panel of an image and write it as a PNG file, atomically.

    Raises:
        ImageError: the photograph can no longer be read.
        FgvcError: the file cannot be written.
    """
    panel = draw_panel(explained)
    with replacing(path) as temporary:
        panel.save(temporary, format="png", compress_level=4)


def panel_files(images: Sequence[Path], out: Path | None, force: bool) -> list[Path]:
    """Return the panel file of each image: `NAME.explain.png`, in the current folder or in `out`.

    Images with the same name are distinguished by the folders that they are in.

    Raises:
        UsageError: a panel already exists and `force` is not set, or `out` is a file.
        FgvcError: `out` cannot be created or written to.
    """
    if out is not None and out.exists() and not out.is_dir():
        raise UsageError(f"`out={out}` is a file; name a folder")
    panels = [(out or Path()) / f"{name}{PANEL_SUFFIX}" for name in distinct_names(images)]
    existing = [panel for panel in panels if panel.exists()]
    if existing and not force:
        more = f" (and {len(existing) - 1} more)" if len(existing) > 1 else ""
        raise UsageError(f"{existing[0]} already exists{more}; overwrite it with `force`, or choose another `out`")
    check_writable(out or Path(), "Pictures")
    return panels


def draw_panel(explained: ExplainedImage) -> PILImage:
    """Draw the panel of an image.

    Raises:
        ImageError: the photograph can no longer be read.
    """
    tiles = 2 * sum(len(e.steps) + (e.contrast is not None) for e in explained.explanations)
    photograph = open_photograph(explained.input.source, min(LONGEST_SIDE, math.isqrt(PANEL_PIXELS // tiles)))
    rows = [
        [tile for block in row for tile in block]
        for row in _arranged(blocks(explained, photograph.image), photograph.size)
    ]
    columns = max(map(len, rows))
    column = max(photograph.size[0], MIN_COLUMN)
    text = max(MIN_TEXT, min(columns * column // 100, column // 16))  # readable when the whole panel is in view
    return _Canvas(column, text, columns).draw(_header(explained), rows, _footer(explained, photograph))


def _arranged(explanations: list[list[Block]], tile: tuple[int, int]) -> list[list[Block]]:
    """Arrange the blocks in rows.

    One row, if that is not too wide. Otherwise the steps of several explanations go in one direction and the
    explanations in the other; the steps of a single explanation, or single maps of several, are wrapped like words.
    """
    flat = [block for steps in explanations for block in steps]
    is_sequence = len(explanations) == 1 or len(flat) == len(explanations)
    if not is_sequence:
        candidates = [explanations, [list(steps) for steps in zip(*explanations, strict=True)]]
    elif sum(map(len, flat)) * max(tile[0], MIN_COLUMN) <= ONE_ROW:
        return [flat]
    else:
        candidates = [[flat[i : i + n] for i in range(0, len(flat), n)] for n in range(1, len(flat) + 1)]
    return min(candidates, key=lambda rows: _shape_error(rows, tile))


def _shape_error(rows: list[list[Block]], tile: tuple[int, int]) -> float:
    """Rate rows of tiles of (width, height): the fraction of empty places, and the distance from `ASPECT`."""
    columns = max(sum(len(block) for block in row) for row in rows)
    empty = 1 - sum(len(block) for row in rows for block in row) / (columns * len(rows))
    return empty + abs(math.log(columns * max(tile[0], MIN_COLUMN) / (len(rows) * tile[1]) / ASPECT))


def _header(explained: ExplainedImage) -> list[str]:
    """Return the name of the image, and the run or explainer if there is only one."""
    single = [f"run {Path(explained.runs[0]).absolute().name}"] if len(explained.runs) == 1 else []
    single += [f"saliency maps: {explained.explainers[0]}"] if len(explained.explainers) == 1 else []
    return [" ".join(explained.input.name.split()), ", ".join(single)]


def _footer(explained: ExplainedImage, photograph: Photograph) -> list[str]:
    boxes = [crop_box(photograph.size, e.preprocessing) for e in explained.explanations]
    whole = all(pixel_box(photograph.size, box) == (0, 0, *photograph.size) for box in boxes)
    text = "; ".join([*([] if whole else ["outlined: the classifier's crop"]), *filter(None, [photograph.note])])
    return [text] if text else []


@dataclass
class _Canvas:
    """Measures and draws the rows of a panel; `text` is the size of the text and of the gaps, in pixels."""

    column: int
    text: int
    columns: int

    @property
    def width(self) -> int:
        return self.columns * (self.column + self.text) - self.text

    def draw(self, header: Sequence[str], rows: Sequence[Sequence[Tile]], footer: Sequence[str]) -> PILImage:
        heights = [self._row_height(row) for row in rows]
        height = self._text_height(header) + sum(heights) + self.text * len(rows)
        height += line_height(self.text) + self._text_height(footer)
        panel = Image.new("RGB", (self.width + 2 * self.text, height + 2 * self.text), BACKGROUND)
        y = self._draw_text(panel, self.text, header, bold_first=True)
        for row, row_height in zip(rows, heights, strict=True):
            for i, tile in enumerate(row):
                self._draw_tile(panel, tile, (self.text + i * (self.column + self.text), y), self._titles_height(row))
            y += row_height + self.text
        self._draw_scale(panel, y)
        self._draw_text(panel, y + line_height(self.text), footer)
        return panel

    def _row_height(self, row: Sequence[Tile]) -> int:
        below = max(self._caption_height(tile.caption) for tile in row)
        return self._titles_height(row) + max(tile.picture.height for tile in row) + self.text // 3 + below

    def _titles_height(self, row: Sequence[Tile]) -> int:
        lines = max(len(wrapped(tile.title, self.column, self.text)) for tile in row)
        return lines * line_height(self.text) + self.text // 4

    def _caption_height(self, lines: Sequence[CaptionLine]) -> int:
        count = sum(1 + len(line.name_lines(self.column, self.text)) for line in lines)
        return count * line_height(self.text) + len(lines) * (self.text // 3)

    def _text_height(self, paragraphs: Sequence[str]) -> int:
        lines = sum(len(wrapped(text, self.width, self.text)) for text in paragraphs)
        return lines * line_height(self.text) + self.text // 2

    def _draw_tile(self, panel: PILImage, tile: Tile, place: tuple[int, int], titles_height: int) -> None:
        """Draw a tile; its title is directly above the picture, however many lines the other titles have."""
        left, y = place
        draw = ImageDraw.Draw(panel)
        y += titles_height
        for i, title in enumerate(reversed(wrapped(tile.title, self.column, self.text)), 1):
            above = y - self.text // 4 - i * line_height(self.text)
            draw.text((left, above), title, fill=INK, font=font(self.text))
        panel.paste(tile.picture, (left, y))
        self._draw_caption(draw, (left, y + tile.picture.height + self.text // 3), tile.caption)

    def _draw_caption(self, draw: ImageDraw.ImageDraw, place: tuple[int, int], lines: Sequence[CaptionLine]) -> None:
        left, y = place
        for line in lines:
            figure_width = text_width(line.figure, self.text, bold=True)
            room = self.column - figure_width - (self.text // 2 if line.figure else 0)
            draw.text((left, y), truncated(line.label, room, self.text), fill=FAINT, font=font(self.text))
            place = (left + self.column - figure_width, y)
            draw.text(place, line.figure, fill=INK, font=font(self.text, bold=True))
            y += line_height(self.text)
            for part in line.name_lines(self.column, self.text):
                draw.text((left, y), part, fill=INK, font=font(self.text, bold=True))
                y += line_height(self.text)
            y += self.text // 3

    def _draw_text(self, panel: PILImage, y: int, paragraphs: Sequence[str], bold_first: bool = False) -> int:
        """Draw paragraphs of text and return the position below them."""
        draw, size = ImageDraw.Draw(panel), self.text
        for i, text in enumerate(paragraphs):
            bold = bold_first and i == 0
            lines = [truncated(text, self.width, size, bold, middle=True)] if bold else wrapped(text, self.width, size)
            for line in lines:
                draw.text((size, y), line, fill=INK if bold else FAINT, font=font(size, bold))
                y += line_height(size)
        return y + size // 2

    def _draw_scale(self, panel: PILImage, y: int) -> None:
        """Draw the color scale from 0 to 1."""
        draw, size = ImageDraw.Draw(panel), self.text
        bar_width, x = min(self.width // 3, 10 * size), size
        draw.text((x, y), "0", fill=INK, font=font(size))
        x += text_width("0 ", size)
        panel.paste(color_scale(bar_width, size), (x, y + size // 5))
        x += bar_width + text_width(" ", size)
        draw.text((x, y), "1", fill=INK, font=font(size))
        x += text_width("1  ", size)
        draw.text((x, y), truncated("saliency", size + self.width - x, size), fill=FAINT, font=font(size))
