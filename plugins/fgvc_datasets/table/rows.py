"""Read the rows of a CSV or TSV file, one per image."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import NamedTuple, TextIO

from fgvc_cli.contracts.dataset import IMAGE_SUFFIXES
from fgvc_cli.errors import FgvcError, UsageError, did_you_mean
from fgvc_datasets.folder_names import USUAL_NAMES, split_named
from fgvc_datasets.options import TableOptions

USUAL_COLUMNS = {
    "path": ("path", "file", "filename", "image", "image_path"),
    "label": ("label", "class", "class_name", "category"),
    "split": ("split", "set", "subset", "partition"),
}
USUAL_PARENTS = (
    *("genus", "family", "order", "phylum", "kingdom", "parent", "supercategory", "superclass", "coarse_label"),
)
"""Names of columns of the classes' groups."""
OTHER_COLUMNS = {"path": ("file_name", "filepath", "file_path", "image_id"), "label": (), "split": ("is_valid",)}
"""Names that count if there is no column of a usual name."""
ORDER = "path, label or path, label, split"
"""The columns of a table without header."""


@dataclass(frozen=True)
class Columns:
    """Column indices, counted from 0.

    Attributes:
        path: of the image file.
        label: of the class.
        split: of the split; None if the table has none.
        width: number of columns.
        header: whether the first line names the columns.
        boolean: whether the column of splits is `is_valid`, whose values are true and false.
        parents: of the classes' groups, with their names.
        folds: whether it is `fold`, which counts only if it has names of splits.
        names: of all columns; empty without header.
    """

    path: int
    label: int
    split: int | None
    width: int
    header: bool
    boolean: bool = False
    parents: tuple[tuple[int, str], ...] = ()
    folds: bool = False
    names: tuple[str, ...] = ()


def find_columns(first: Sequence[str], options: TableOptions, where: str) -> Columns:
    """Find the columns from the cells of the first line of a table; `where` names file and line in messages.

    The first line is an image if a cell ends like an image file and no option names a column; the order is then path,
    label and optionally split. Otherwise the line is a header.

    Raises:
        FgvcError: no column, or more than one, may be the path or the label; or there are too many without a header.
        UsageError: an option names a column that does not exist.
    """
    names = [cell.strip() for cell in first]
    if not (options.path or options.label or options.split or options.parents) and any(map(_is_image_name, names)):
        return _without_header(names, where)
    path, label = (_column(names, kind, getattr(options, kind), where) for kind in ("path", "label"))
    split = _column(names, "split", options.split, where)
    folds = [index for index, name in enumerate(names) if name.lower() == "fold"]
    if split is None and len(folds) == 1:
        split = folds[0]
    if path is None or label is None:
        raise FgvcError(_not_found(names, "path" if path is None else "label", where))
    boolean = split is not None and names[split].lower() == "is_valid"
    taken = {path, label, split}
    parents = [(i, names[i]) for i in _parents(names, options, where) if i not in taken]
    of_folds = split is not None and [split] == folds and options.split is None
    return Columns(path, label, split, len(names), True, boolean, tuple(parents), of_folds, tuple(names))


def _parents(names: Sequence[str], options: TableOptions, where: str) -> list[int]:
    """Return the indices of the columns of groups: the named ones, or those with a usual name."""
    if options.parents is None:
        return [i for i, name in enumerate(names) if name.lower() in USUAL_PARENTS]
    wanted = [name.strip() for name in options.parents.split(",") if name.strip()]
    found = [_column(names, "parents", name, where) for name in wanted]
    if repeated := [name for i, name in enumerate(wanted) if found[i] in found[:i]]:
        raise UsageError(f"`dataset.parents={options.parents}` names the column '{repeated[0]}' twice")
    return [i for i in found if i is not None]


def _without_header(cells: Sequence[str], where: str) -> Columns:
    if len(cells) in (2, 3) and _is_image_name(cells[0]):
        return Columns(0, 1, 2 if len(cells) == 3 else None, len(cells), header=False)
    number = f"{len(cells)} column{'' if len(cells) == 1 else 's'}"
    raise FgvcError(
        f"{where}: without a header line the columns are {ORDER}, and this line has "
        f"{number if _is_image_name(cells[0]) else 'its image in another column'}; add a header line"
    )


def _is_image_name(cell: str) -> bool:
    return os.path.splitext(cell)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122  a cell is not a path yet


def _column(names: Sequence[str], kind: str, wanted: str | None, where: str) -> int | None:
    """Return the index of the column that an option names, or of the one with a usual name, or None."""
    lowered = [name.lower() for name in names]
    if wanted is not None:
        found = [index for index, name in enumerate(names) if name == wanted]
        found = found or [index for index, name in enumerate(lowered) if name == wanted.lower()]
        if not found:
            raise UsageError(
                f"{where}: no column '{wanted}' (`dataset.{kind}`).{did_you_mean(wanted, names)} "
                f"Columns: {_listed(names)}"
            )
        if len(found) > 1:
            raise FgvcError(_same_name(wanted, kind, where))
        return found[0]
    usual = [index for index, name in enumerate(lowered) if name in USUAL_COLUMNS[kind]]
    usual = usual or [index for index, name in enumerate(lowered) if name in OTHER_COLUMNS[kind]]
    if len(usual) > 1:
        if len({names[index] for index in usual}) == 1:
            raise FgvcError(_same_name(names[usual[0]], kind, where))
        several = " and ".join(f"'{names[index]}'" for index in usual)
        raise FgvcError(f"{where}: the columns {several} may all be the {kind}; choose one with `dataset.{kind}`")
    return usual[0] if usual else None


def _same_name(name: str, kind: str, where: str) -> str:
    return f"{where}: several columns are called '{name}' and may be the {kind}; rename all but one of them"


def _not_found(names: Sequence[str], kind: str, where: str) -> str:
    usual = ", ".join(USUAL_COLUMNS[kind])
    return (
        f"{where}: no column for the {kind} ({usual}) among {_listed(names)}; choose one with `dataset.{kind}`; "
        f"without a header line, the columns are {ORDER}"
    )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(f"'{name[:40]}'" for name in names[:12])
    return shown + (f" and {len(names) - 12} more" if len(names) > 12 else "")


DELIMITERS = {".tsv": "\t"}
"""Delimiters by the file's suffix; other files may use any of `ANY_DELIMITER`."""

ANY_DELIMITER = ",;\t"

IS_VALID = {"true": "val", "1": "val", "false": "train", "0": "train"}
"""Splits by the values of a column `is_valid`."""
SPLIT_OF = {usual: split for split, names in USUAL_NAMES.items() for usual in names}


class Row(NamedTuple):
    """One image of a table."""

    line: int
    """number of its last line in the file, from 1"""
    path: str
    label: str
    split: str
    """"train", "val" or "test"; "train" if the table has no column for it"""
    parents: tuple[str, ...] = ()
    """groups of the class, in the order of their columns"""


class Table(NamedTuple):
    """The content of a table."""

    rows: list[Row]
    has_splits: bool
    parents: tuple[str, ...] = ()
    """names of the columns of groups"""
    note: str = ""
    """a line for the user; empty without one"""
    columns: tuple[str, ...] = ()
    """names of all columns; empty without header"""


def read_table(file: Path, options: TableOptions) -> Table:
    """Read all rows of a table, without blank lines and blanks around cells.

    Raises:
        FgvcError: the file cannot be read, is not UTF-8 text, has no rows, or a row is invalid (names the line).
        UsageError: an option names a column that does not exist.
    """
    with _opened(file, options) as lines:
        return _table(lines, file, options)


def read_column(file: Path, options: TableOptions, name: str) -> dict[int, str]:
    """Read the cells of one column of a table with a header by line, empty ones too.

    Raises:
        FgvcError: the file cannot be read.
    """
    with _opened(file, options) as lines:
        index = [cell.strip() for cell in next(lines)[1]].index(name)
        return {number: cells[index].strip() if index < len(cells) else "" for number, cells in lines}


@contextmanager
def _opened(file: Path, options: TableOptions) -> Iterator[Iterator[tuple[int, list[str]]]]:
    """Open a table and yield the number and the cells of each line that is not blank."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as text:
            start = "".join(line for line, _ in zip(text, range(100), strict=False))
            text.seek(0)
            yield _lines(text, _delimiter(start, file, options), file)
    except UnicodeDecodeError as error:
        raise FgvcError(f"{file}: not UTF-8 text (byte {error.start}); save it as CSV in UTF-8") from error
    except OSError as error:
        raise FgvcError(f"{file}: cannot be read: {error.strerror}") from error


def _table(lines: Iterator[tuple[int, list[str]]], file: Path, options: TableOptions) -> Table:
    number, first = next(lines, (0, []))
    if not number:
        raise FgvcError(f"{file}: empty; a table of images has the columns path, label and optionally split")
    columns, note = find_columns(first, options, f"{file}, line {number}"), ""
    if columns.folds:
        columns, lines, note = _folds(columns, lines)
    rows = [] if columns.header else [_row(first, number, columns, file)]
    rows += [_row(cells, number, columns, file) for number, cells in lines]
    if not rows:
        raise FgvcError(f"{file}: has a header but no images")
    parents = tuple(name for _, name in columns.parents)
    return Table(rows, columns.split is not None, parents, note, tuple(filter(None, columns.names)))


def _folds(
    columns: Columns, lines: Iterator[tuple[int, list[str]]]
) -> tuple[Columns, Iterator[tuple[int, list[str]]], str]:
    """Take a column `fold` for that of the splits only if it begins with the name of one, and not with a number."""
    first = next(lines, None)
    if first is None:
        return columns, lines, ""
    lines, cells, column = chain([first], lines), first[1], columns.split
    if column is None or column >= len(cells) or split_named(cells[column].strip()) is not None:
        return columns, lines, ""
    note = (
        f"the column 'fold' is not used: '{cells[column].strip()}' is no split; to validate on one of the folds, add a "
        "column is_valid"
    )
    return replace(columns, split=None), lines, note


def _lines(text: TextIO, delimiter: str, file: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the number and the cells of each line that is not blank."""
    reader = csv.reader(text, delimiter=delimiter, strict=True, skipinitialspace=True)
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise FgvcError(
                f"{file}, line {reader.line_num}: {error}; close quotes, and double a quote inside quotes"
            ) from error
        if cells is None:
            return
        if any(cell.strip() for cell in cells):
            yield reader.line_num, cells


def _row(cells: Sequence[str], line: int, columns: Columns, file: Path) -> Row:
    """Check one row; additional cells are allowed if they are empty."""
    where = f"{file}, line {line}"
    needed = max(columns.path, columns.label, columns.split or 0)
    parents = tuple(cells[i].strip() if i < len(cells) else "" for i, _ in columns.parents)
    if len(cells) <= needed or any(cell.strip() for cell in cells[columns.width :]):
        raise FgvcError(
            f"{where}: {len(cells)} column{'' if len(cells) == 1 else 's'} where the first line has {columns.width}; "
            'quote cells that contain the delimiter ("a,b.jpg")'
        )
    path, label = cells[columns.path].strip(), cells[columns.label].strip()
    if not path or not label:
        raise FgvcError(f"{where}: the {'label' if path else 'path'} is empty")
    if "\0" in path:
        raise FgvcError(f"{where}: the path contains a null byte; the file is damaged")
    return Row(
        line,
        path,
        label,
        "train" if columns.split is None else _split(cells[columns.split].strip(), where, columns.boolean),
        parents,
    )


def _split(name: str, where: str, boolean: bool) -> str:
    split = IS_VALID.get(name.lower()) if boolean else split_named(name)
    if split is None:
        known = ", ".join(IS_VALID if boolean else SPLIT_OF)
        given = f"'{name}' is not a split" if name else "the split is empty"
        raise FgvcError(f"{where}: {given}.{did_you_mean(name.lower(), SPLIT_OF)} Splits: {known}")
    return split


def _delimiter(start: str, file: Path, options: TableOptions) -> str:
    """Choose the delimiter with which the first line fits a table of images, or else the one with most columns.

    Counting columns alone is not enough: a comma may be part of a file name.
    """

    def fit(delimiter: str) -> tuple[bool, int]:
        reader = csv.reader(start.splitlines(keepends=True), delimiter=delimiter, skipinitialspace=True)
        try:
            cells = next((cells for cells in reader if any(cells)), [])
        except csv.Error:  # reading the rows will report it with its line
            return False, 0
        try:
            find_columns(cells, options, "")
        except FgvcError:
            return False, len(cells)
        return True, len(cells)

    return max(DELIMITERS.get(file.suffix.lower(), ANY_DELIMITER), key=fit)
