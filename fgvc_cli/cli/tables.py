"""Tables in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fgvc_cli.cli.console import out

if TYPE_CHECKING:
    from rich.align import VerticalAlignMethod
    from rich.console import JustifyMethod
    from rich.table import Table

GAP = 2
"""Blanks between two columns, and before the name of a row."""
LEAST_NAME = 16
"""Characters that the names of rows get even where figures would fill the terminal."""


@dataclass(frozen=True)
class Column:
    """A column of a table, beside the names of its rows.

    Attributes:
        heading: one or two lines.
        cells: one a row.
        words: whether the cells are words, not figures: they begin below each other, and a long one is broken.
        joined: whether it stays beside the column before it.
    """

    heading: str
    cells: Sequence[str]
    words: bool = False
    joined: bool = False

    @property
    def width(self) -> int:
        """Characters of the longest cell, and the gap before it."""
        return GAP + max(len(line) for text in (self.heading, *self.cells) for line in text.split("\n"))


def print_sections(heading: str, names: Sequence[str], sections: Sequence[str], columns: Sequence[Column]) -> None:
    """Print a table whose rows fall into sections; one that is too wide for the terminal is printed in parts.

    Args:
        heading: over the names.
        names: of the rows.
        sections: the title of the section that each row is in; "": none.
        columns: beside the names; one without a single filled cell is left out.
    """
    console = out()
    label = Column(heading, names)
    name_width = max(min(label.width, console.width // 2), LEAST_NAME)
    parts = split([column for column in columns if any(column.cells)], console.width - name_width)
    for number, part in enumerate(parts):
        if number:
            console.print()
        widths = [name_width, *(min(column.width, console.width - name_width) for column in part)]
        _print_part(label, sections, part, widths)


def split(columns: Sequence[Column], room: int) -> list[list[Column]]:
    """Return the columns, in their order, in as few parts of at most `room` characters as it takes, evenly filled.

    Columns that are joined stay together; what is wider than `room` gets a part of its own.
    """
    blocks: list[list[Column]] = []
    for column in columns:
        if column.joined and blocks:
            blocks[-1].append(column)
        else:
            blocks.append([column])
    fewest = len(_filled(blocks, room))
    even = next((width for width in range(1, room) if len(_filled(blocks, width)) == fewest), room)
    return _filled(blocks, even)


def _filled(blocks: Sequence[Sequence[Column]], room: int) -> list[list[Column]]:
    """Fill one part after the other."""
    parts: list[list[Column]] = []
    for block in blocks:
        if parts and sum(column.width for column in (*parts[-1], *block)) <= room:
            parts[-1] += block
        else:
            parts.append(list(block))
    return parts


def _print_part(label: Column, sections: Sequence[str], columns: Sequence[Column], widths: Sequence[int]) -> None:
    """Print a heading and each section as tables of the same widths, so that a section's title may be of any length."""
    from rich.text import Text

    console = out()
    header = _grid(columns, widths, "bottom")
    header.add_row(label.heading, *(column.heading for column in columns), style="bold")
    console.print(header)
    for section in dict.fromkeys(sections):
        if section:
            console.print(Text(section, style="bold cyan"), soft_wrap=True)
        table = _grid(columns, widths)
        for index, name in enumerate(label.cells):
            if sections[index] == section:
                table.add_row(name, *(column.cells[index] for column in columns))
        console.print(table)


def _grid(columns: Sequence[Column], widths: Sequence[int], vertical: VerticalAlignMethod = "top") -> Table:
    from rich.table import Table

    # not collapsed: rich would take the gap from a fixed width, and cells would be cut
    table = Table.grid(padding=(0, 0, 0, GAP), collapse_padding=False, pad_edge=True)
    table.add_column(width=widths[0] - GAP, overflow="fold", vertical=vertical)
    for column, width in zip(columns, widths[1:], strict=True):
        side: JustifyMethod = "left" if column.words else "right"
        whole = not column.words and column.width <= width  # else rich would cut it
        table.add_column(width=width - GAP, justify=side, overflow="fold", no_wrap=whole, vertical=vertical)
    return table
