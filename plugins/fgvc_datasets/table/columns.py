"""Which column of a table holds the path, the label and the split of an image."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from fgvc_cli.contracts.image_files import IMAGE_SUFFIXES
from fgvc_cli.errors import FgvcError, UsageError, did_you_mean
from fgvc_datasets.table.options import TableOptions

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
