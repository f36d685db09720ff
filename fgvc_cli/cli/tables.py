"""Tables in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fgvc_cli.cli.console import out
from fgvc_cli.formatting import quoted

if TYPE_CHECKING:
    from rich.align import VerticalAlignMethod
    from rich.console import JustifyMethod
    from rich.table import Table

GAP = 2
"""Spaces between two columns, and before the name of a row."""
MIN_NAME_WIDTH = 16
"""Minimum width of the column of row names."""


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        heading: one or two lines.
        cells: one per row.
        words: whether the cells are text, which is left-aligned and wraps, rather than numbers.
        joined: whether it stays next to the column before it.
    """

    heading: str
    cells: Sequence[str]
    words: bool = False
    joined: bool = False

    @property
    def width(self) -> int:
        """Width of the longest cell with the gap before it."""
        return GAP + max(len(line) for text in (self.heading, *self.cells) for line in text.split("\n"))


def print_sections(heading: str, names: Sequence[str], sections: Sequence[str], columns: Sequence[Column]) -> None:
    """Print a table with rows in sections; a table wider than the terminal is split into several.

    `sections` has the title of each row's section, empty for none. Columns without any text are left out.
    """
    console = out()
    label = Column(heading, names)
    name_width = max(min(label.width, console.width // 2), MIN_NAME_WIDTH)
    parts = split([column for column in columns if any(column.cells)], console.width - name_width)
    for number, part in enumerate(parts):
        if number:
            console.print()
        widths = [name_width, *(min(column.width, console.width - name_width) for column in part)]
        _print_part(label, sections, part, widths)


def split(columns: Sequence[Column], room: int) -> list[list[Column]]:
    """Split columns, in their order, into as few parts of at most `room` characters as possible, evenly filled.

    Joined columns stay together; a block wider than `room` gets its own part.
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
    """Fill the parts greedily."""
    parts: list[list[Column]] = []
    for block in blocks:
        if parts and sum(column.width for column in (*parts[-1], *block)) <= room:
            parts[-1] += block
        else:
            parts.append(list(block))
    return parts


def _print_part(label: Column, sections: Sequence[str], columns: Sequence[Column], widths: Sequence[int]) -> None:
    """Print the heading and each section as tables of the same widths, so that section titles may have any length."""
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

    # collapsed padding would reduce the fixed widths, and cut cells
    table = Table.grid(padding=(0, 0, 0, GAP), collapse_padding=False, pad_edge=True)
    table.add_column(width=widths[0] - GAP, overflow="fold", vertical=vertical)
    for column, width in zip(columns, widths[1:], strict=True):
        side: JustifyMethod = "left" if column.words else "right"
        whole = not column.words and column.width <= width  # otherwise rich would cut it
        table.add_column(width=width - GAP, justify=side, overflow="fold", no_wrap=whole, vertical=vertical)
    return table


def figure_table(*titles: str) -> Table:
    """Return an empty table; a title that ends in a colon is the heading of a column of numbers."""
    from rich.table import Table

    table = Table(box=None, header_style="bold", padding=(0, 3, 0, 0))
    for title in titles:
        number, name = title.endswith(":"), title.rstrip(":")
        table.add_column(name, justify="right" if number else "left", overflow="fold", no_wrap=number)
    return table


def print_titled(title: str, table: Table) -> None:
    """Print a table below its title and an empty line; nothing if it has no rows."""
    if table.row_count:
        print_title(title)
        out().print(table)


def print_title(title: str) -> None:
    """Print the title of a table, after an empty line."""
    from rich.text import Text

    out().print()
    out().print(Text(title, style="bold cyan"))


def skipped_line(keys: Sequence[str], shown: int = 5) -> str:
    """Name the images that could not be read, the first few of many."""
    more = f" and {len(keys) - shown} more, see summary.json" if len(keys) > shown else ""
    return f"skipped, cannot be read ({len(keys)}): {', '.join(keys[:shown])}{more}"


def written_line(files: Sequence[Path]) -> str:
    """Name the files written, which are in one folder."""
    return f"written: {quoted(str(files[-1].parent))}/ ({', '.join(file.name for file in files)})"


def next_lines(commands: Sequence[str]) -> list[str]:
    """Return the commands that most users would run next, one or two, ready to paste."""
    return [head + command for head, command in zip(("next: ", "      "), commands, strict=False)]
