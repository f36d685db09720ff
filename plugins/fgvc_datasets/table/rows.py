"""X"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TextIO

from fgvc_cli.contracts.image_files import IMAGE_SUFFIXES
from fgvc_cli.errors import FgvcError, UsageError, did_you_mean
from fgvc_datasets.folder import USUAL_NAMES
from fgvc_datasets.options import TableOptions

USUAL_COLUMNS = {
    "path": ("path", "file", "filename", "image", "image_path"),
    "label": ("label", "class", "class_name", "category"),
    "split": ("split", "set", "subset", "partition"),
}
ORDER = "path, label or path, label, split"
"""The columns of a table without header."""


@dataclass(frozen=True)
class Columns:
    """Where things are in a row, counted from 0.

    Attributes:
        path: the image file.
        label: the class.
        split: the split; None if the table has none.
        width: how many columns a row has.
        header: whether the first line names the columns.
    """

    path: int
    label: int
    split: int | None
    width: int
    header: bool


def find_columns(first: Sequence[str], options: TableOptions, where: str) -> Columns:
    """Find the columns by the first line of a table.

    The first line is an image if its first column ends as an image file does and no option names a column; then the
    order is path, label and perhaps split. Otherwise the line is a header.

    Args:
        first: the first line's cells.
        options: may name columns.
        where: file and line, for messages.

    Raises:
        FgvcError: no column, or more than one, may hold the path or the label; or there are too many without a header.
        UsageError: there is no column of a name that an option gives.
    """
    names = [cell.strip() for cell in first]
    if not (options.path or options.label or options.split) and any(map(_is_image_name, names)):
        return _without_header(names, where)
    path, label = (_column(names, kind, getattr(options, kind), where) for kind in ("path", "label"))
    split = _column(names, "split", options.split, where)
    if path is None or label is None:
        raise FgvcError(_not_found(names, "path" if path is None else "label", where))
    return Columns(path, label, split, len(names), header=True)


def _without_header(cells: Sequence[str], where: str) -> Columns:
    if len(cells) in (2, 3) and _is_image_name(cells[0]):
        return Columns(0, 1, 2 if len(cells) == 3 else None, len(cells), header=False)
    number = f"{len(cells)} column{'' if len(cells) == 1 else 's'}"
    raise FgvcError(
        f"{where}: without a header line the columns are {ORDER}, and this line has "
        f"{number if _is_image_name(cells[0]) else 'its image in another column'}. "
        "Add a first line with the names of the columns."
    )


def _is_image_name(cell: str) -> bool:
    return os.path.splitext(cell)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122  a cell is no path yet


def _column(names: Sequence[str], kind: str, wanted: str | None, where: str) -> int | None:
    """Return the index of the column that an option names, or else of the one with a usual name, if there is one."""
    lowered = [name.lower() for name in names]
    if wanted is not None:
        found = [index for index, name in enumerate(names) if name == wanted]
        found = found or [index for index, name in enumerate(lowered) if name == wanted.lower()]
        if not found:
            raise UsageError(
                f"{where}: no column is called '{wanted}', which dataset.{kind} names.{did_you_mean(wanted, names)} "
                f"Columns: {_listed(names)}."
            )
        if len(found) > 1:
            raise FgvcError(_same_name(wanted, kind, where))
        return found[0]
    usual = [index for index, name in enumerate(lowered) if name in USUAL_COLUMNS[kind]]
    if len(usual) > 1:
        if len({names[index] for index in usual}) == 1:
            raise FgvcError(_same_name(names[usual[0]], kind, where))
        several = " and ".join(f"'{names[index]}'" for index in usual)
        raise FgvcError(
            f"{where}: the columns {several} may each hold the {kind}: say which with --set dataset.{kind}=NAME."
        )
    return usual[0] if usual else None


def _same_name(name: str, kind: str, where: str) -> str:
    return f"{where}: several columns are called '{name}', and each may hold the {kind}. Rename all but one of them."


def _not_found(names: Sequence[str], kind: str, where: str) -> str:
    usual = ", ".join(USUAL_COLUMNS[kind])
    return (
        f"{where}: no column for the {kind} ({usual}) among {_listed(names)}. Say which it is with "
        f"--set dataset.{kind}=NAME; without a header line, the columns are {ORDER}."
    )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(f"'{name[:40]}'" for name in names[:12])
    return shown + (f" and {len(names) - 12} more" if len(names) > 12 else "")


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
