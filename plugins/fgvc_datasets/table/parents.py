"""The taxonomy in the columns of a table."""

from __future__ import annotations

from pathlib import Path

from fgvc_cli.contracts import DatasetRequest, Taxonomy
from fgvc_cli.errors import FgvcError
from fgvc_datasets.options import TableOptions
from fgvc_datasets.table.rows import Row, Table

CLASS_LEVEL = "class"


def table_taxonomy(table: Table, file: Path, options: TableOptions, request: DatasetRequest) -> Taxonomy | None:
    """Return the taxonomy in the columns of groups, in any order; None without one.

    Columns that were found by their usual names are ignored, with a note, if they are no tree over the classes.

    Raises:
        FgvcError: columns that the options name are no tree: a class or a group has two parents.
    """
    if not table.parents:
        return None
    first: dict[str, Row] = {}
    fault, taxonomy = "", None
    for row in table.rows:
        other = first.setdefault(row.label, row)
        if other.parents != row.parents:
            column, one, two = next(
                t for t in zip(table.parents, other.parents, row.parents, strict=True) if t[1] != t[2]
            )
            fault = (
                f"'{row.label}' has two parents, {column} '{one}' in line {other.line} and '{two}' in line {row.line}"
            )
            break
    else:
        level = CLASS_LEVEL if CLASS_LEVEL not in table.parents else "label"
        groups = {name: row.parents for name, row in first.items()}
        taxonomy = Taxonomy.of_columns((level, *table.parents), groups)
        fault = "" if taxonomy is None else taxonomy.fault(list(first))
    if fault and options.parents is not None:
        raise FgvcError(f"{file}: {fault}; correct the table, or name other columns with `dataset.parents`")
    if fault:
        columns = ", ".join(table.parents)
        request.note(f"{file}: the columns {columns} are not used as groups of classes: {fault}")
        return None
    return taxonomy
