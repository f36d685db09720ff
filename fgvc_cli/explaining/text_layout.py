"""Measure, wrap and shorten text in pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import ImageDraw, ImageFont

ELLIPSIS = "…"
BREAKS = " -_/."
"""Characters after which a line may end; a name without any is broken anywhere."""

INK, FAINT = (34, 39, 46), (104, 112, 122)


@cache
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Return DejaVu Sans, which comes with matplotlib and has the letters of most scripts, at so many pixels."""
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name, size)


def line_height(size: int) -> int:
    """Return pixels from one line of text of that size to the next."""
    return round(1.3 * size)


def width_of(text: str, size: int, bold: bool = False) -> int:
    """Return pixels that a line of text takes."""
    return round(font(size, bold).getlength(text) + 0.5)


def wrapped(text: str, width: int, size: int, bold: bool = False, lines: int = 2) -> list[str]:
    """Break text into lines of at most `width` pixels; what does not fit into `lines` is left out, with an ellipsis."""
    rest = " ".join(text.split())
    found: list[str] = []
    while rest and len(found) < lines - 1 and width_of(rest, size, bold) > width:
        end = _line_end(rest, width, size, bold)
        found.append(rest[:end].rstrip())
        rest = rest[end:].lstrip()
    return [*found, shortened(rest, width, size, bold)] if rest else found


def shortened(text: str, width: int, size: int, bold: bool = False, middle: bool = False) -> str:
    """Leave out what does not fit into `width` pixels: the end, or the middle, of which an ellipsis takes the place."""
    if width_of(text, size, bold) <= width:
        return text
    kept = next((n for n in range(len(text) - 1, 0, -1) if width_of(_cut(text, n, middle), size, bold) <= width), 0)
    return _cut(text, kept, middle) if kept else ""


def _cut(text: str, kept: int, middle: bool) -> str:
    if not middle:
        return text[:kept].rstrip() + ELLIPSIS
    tail = kept // 2
    return text[: kept - tail] + ELLIPSIS + text[len(text) - tail :] if tail else text[:kept] + ELLIPSIS


def _line_end(text: str, width: int, size: int, bold: bool) -> int:
    """Return how many characters the first line takes: at least one."""
    fitting = next((n for n in range(len(text), 1, -1) if width_of(text[:n].rstrip(), size, bold) <= width), 1)
    breaks = [n for n in range(1, fitting + 1) if text[n - 1] in BREAKS]
    return breaks[-1] if breaks and breaks[-1] > fitting // 3 else fitting


@dataclass(frozen=True)
class Line:
    """A line below (or above) a picture: a word on the left in gray, bold text, and a figure on the right.

    Attributes:
        word: what it is of, such as "predicted".
        figure: a probability, as text.
        name: written below them, in at most two lines.
    """

    word: str
    figure: str = ""
    name: str = ""


def caption_height(lines: Sequence[Line], width: int, size: int) -> int:
    """Return the pixels that a caption of that width takes."""
    return sum(line_height(size) * (1 + len(_name_lines(line, width, size))) + size // 3 for line in lines)


def draw_caption(
    draw: ImageDraw.ImageDraw, place: tuple[int, int], width: int, lines: Sequence[Line], size: int
) -> None:
    """Draw a caption whose upper left corner is at `place`; nothing of it is right of `width` pixels."""
    left, y = place
    for line in lines:
        figure_width = width_of(line.figure, size, bold=True)
        room = width - figure_width - (size // 2 if line.figure else 0)
        draw.text((left, y), shortened(line.word, room, size), fill=FAINT, font=font(size))
        draw.text((left + width - figure_width, y), line.figure, fill=INK, font=font(size, bold=True))
        y += line_height(size)
        for part in _name_lines(line, width, size):
            draw.text((left, y), part, fill=INK, font=font(size, bold=True))
            y += line_height(size)
        y += size // 3


def _name_lines(line: Line, width: int, size: int) -> list[str]:
    return wrapped(line.name, width, size, bold=True) if line.name else []
