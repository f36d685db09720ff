"""The rows of a CSV or TSV file, one an image."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TextIO

from fgvc_cli.errors import FgvcError, did_you_mean
from fgvc_datasets.layout import USUAL_NAMES
from fgvc_datasets.table.columns import Columns, find_columns
from fgvc_datasets.table.options import TableOptions

DELIMITERS = {".tsv": "\t"}
"""What may stand between the columns, by the file's ending; one that is not here may have any of `ANY_DELIMITER`."""

ANY_DELIMITER = ",;\t"

SPLIT_OF = {usual: split for split, names in USUAL_NAMES.items() for usual in names}


class Row(NamedTuple):
    """One image of a table."""

    line: int
    """where it ends in the file, from 1"""
    path: str
    label: str
    split: str
    """"train", "val" or "test"; "train" if the table has no column for it"""


class Table(NamedTuple):
    """A table that was read."""

    rows: list[Row]
    has_splits: bool


def read_table(file: Path, options: TableOptions) -> Table:
    """Read all rows of a table; blank lines are skipped, blanks around a cell are not part of it.

    Raises:
        FgvcError: the file cannot be read, is no text in UTF-8, has no rows, or a row is wrong; says in which line.
        UsageError: an option names a column that is not there.
    """
    try:
        with file.open(encoding="utf-8-sig", newline="") as text:
            start = "".join(line for line, _ in zip(text, range(100), strict=False))
            text.seek(0)
            return _table(_lines(text, _delimiter(start, file, options), file), file, options)
    except UnicodeDecodeError as error:
        raise FgvcError(f"{file}: is not UTF-8 text (byte {error.start}). Save it as CSV in UTF-8.") from error
    except OSError as error:
        raise FgvcError(f"{file}: cannot be read: {error.strerror}.") from error


def _table(lines: Iterator[tuple[int, list[str]]], file: Path, options: TableOptions) -> Table:
    number, first = next(lines, (0, []))
    if not number:
        raise FgvcError(f"{file}: is empty. A table of images has columns for their path and label, and maybe split.")
    columns = find_columns(first, options, f"{file}, line {number}")
    rows = [] if columns.header else [_row(first, number, columns, file)]
    rows += [_row(cells, number, columns, file) for number, cells in lines]
    if not rows:
        raise FgvcError(f"{file}: has a header and no images below it.")
    return Table(rows, columns.split is not None)


def _lines(text: TextIO, delimiter: str, file: Path) -> Iterator[tuple[int, list[str]]]:
    """Give the cells of each line that is not blank, with the number of the line."""
    reader = csv.reader(text, delimiter=delimiter, strict=True, skipinitialspace=True)
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise FgvcError(
                f"{file}, line {reader.line_num}: {error}. Quotes must be closed, and one inside quotes doubled."
            ) from error
        if cells is None:
            return
        if any(cell.strip() for cell in cells):
            yield reader.line_num, cells


def _row(cells: Sequence[str], line: int, columns: Columns, file: Path) -> Row:
    """Check one row; cells beyond the columns are allowed if they are empty."""
    where = f"{file}, line {line}"
    needed = max(columns.path, columns.label, columns.split or 0)
    if len(cells) <= needed or any(cell.strip() for cell in cells[columns.width :]):
        raise FgvcError(
            f"{where}: {len(cells)} column{'' if len(cells) == 1 else 's'} where the first line has {columns.width}. "
            'What holds the delimiter itself must be in quotes ("a,b.jpg").'
        )
    path, label = cells[columns.path].strip(), cells[columns.label].strip()
    if not path or not label:
        raise FgvcError(f"{where}: the {'label' if path else 'path'} is empty.")
    if "\0" in path:
        raise FgvcError(f"{where}: the path has a zero byte in it; the file is damaged.")
    return Row(line, path, label, "train" if columns.split is None else _split(cells[columns.split].strip(), where))


def _split(name: str, where: str) -> str:
    split = SPLIT_OF.get(name.lower())
    if split is None:
        known = ", ".join(SPLIT_OF)
        given = f"'{name}' is no split" if name else "the split is empty"
        raise FgvcError(f"{where}: {given}.{did_you_mean(name.lower(), SPLIT_OF)} Splits are called {known}.")
    return split


def _delimiter(start: str, file: Path, options: TableOptions) -> str:
    """Choose the delimiter under which the first line is one of a table of images, or else has most columns.

    Counting columns alone would not do: a comma may be part of a file's name.
    """

    def likeness(delimiter: str) -> tuple[bool, int]:
        reader = csv.reader(start.splitlines(keepends=True), delimiter=delimiter, skipinitialspace=True)
        try:
            cells = next((cells for cells in reader if any(cells)), [])
        except csv.Error:  # reading the rows says what is wrong, and where
            return False, 0
        try:
            find_columns(cells, options, "")
        except FgvcError:
            return False, len(cells)
        return True, len(cells)

    return max(DELIMITERS.get(file.suffix.lower(), ANY_DELIMITER), key=likeness)
