"""The dataset `table`: images listed in a CSV or TSV file."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

from fgvc_cli.contracts import Dataset, DatasetRequest, Split, Taxonomy
from fgvc_cli.contracts.dataset import IMAGE_SUFFIXES
from fgvc_cli.errors import FgvcError, UsageError, did_you_mean
from fgvc_datasets.folder_names import similar_names
from fgvc_datasets.options import TableOptions
from fgvc_datasets.table.parents import table_taxonomy
from fgvc_datasets.table.rows import Row, read_column, read_table

SPLITS = ("train", "val", "test")
CHECKED = 20
"""Number of images checked at the beginning of the table; if none exists, the paths have another root."""

INTEGER = re.compile(r"[+-]?[0-9]{1,18}")


class TableDataset(Dataset):
    """Images listed in a CSV or TSV file, with their labels and optionally splits.

    Labels are class names, even if they are numbers; the classes of all splits are sorted, by value if all are
    integers. Keys are the paths as written in the table. An image that is listed twice in a split counts once. Missing
    images are reported when they are read.

    Raises:
        UsageError: no file is given, or an option names a column or folder that does not exist.
        FgvcError: the file does not exist or is not a table of images (names the line), an image has two labels, or
            none of the first images exists.
    """

    def __init__(self, request: DatasetRequest, options: TableOptions) -> None:
        if request.folder is None:
            raise UsageError("the dataset 'table' needs a CSV or TSV file: give it as `data`")
        self.file = request.folder.absolute()
        self.name = self.file.stem
        _check_file(self.file)
        self.root = _root(self.file, options)
        table = read_table(self.file, options)
        if table.note:
            request.note(f"{self.file}: {table.note}")
        self._rows = _by_split(table.rows, self.file, request)
        self._suffix = self._find_suffix(table.rows, request)
        self._check_first_images(table.rows)
        self.class_names = _sorted_names({row.label for row in table.rows})
        if similar := similar_names(self.class_names):
            request.note(f"{self.file}: {similar}")
        self._taxonomy = table_taxonomy(table, self.file, options, request)
        self._options, self._columns = options, table.columns
        self._origin = "" if table.has_splits else f"all of {self.file}, which has no column of splits"

    def splits(self) -> tuple[str, ...]:
        """Return the splits with images; a table without a column of splits is all "train"."""
        return tuple(self._rows)

    def split(self, name: str) -> Split:
        """Return the images of one split, in the order of the table."""
        index_of = {label: index for index, label in enumerate(self.class_names)}
        rows, root = self._rows[name], os.fspath(self.root)
        end = self._suffix
        images = [Path(os.path.join(root, row.path + end)) for row in rows]  # noqa: PTH118  Path objects are 3x slower
        labels = [index_of[row.label] for row in rows]
        return Split(name, images, labels, [row.path for row in rows], origin=self._origin)

    def attributes(self) -> tuple[str, ...]:
        """Return the names of the columns; none without a header line."""
        return self._columns

    def attribute(self, name: str, split: str) -> list[str]:
        """Return the cells of a column for the images of one split; the file is read again."""
        cells = read_column(self.file, self._options, name)
        return [cells[row.line] for row in self._rows[split]]

    def taxonomy(self) -> Taxonomy | None:
        """Return the groups in the columns of parents, if there are any."""
        return self._taxonomy

    def identity(self) -> dict[str, Any]:
        """Return file and folder, the number of images per split, and a digest of the rows."""
        digest = hashlib.sha256()
        for name, rows in self._rows.items():
            for row in rows:
                digest.update("\0".join([name, row.path, row.label, ""]).encode("utf-8", "surrogateescape"))
        return {
            "name": "table",
            "file": str(self.file),
            "folder": str(self.root),
            "images": {name: len(rows) for name, rows in self._rows.items()},
            "rows_sha256": digest.hexdigest(),
        }

    def _find_suffix(self, rows: list[Row], request: DatasetRequest) -> str:
        """Return the suffix to append to paths that are identifiers without one, or an empty string."""
        first = [row.path for row in rows[:CHECKED]]
        if any(os.path.splitext(path)[1].lower() in IMAGE_SUFFIXES for path in first):  # noqa: PTH122  not yet a path
            return ""
        for suffix in sorted(IMAGE_SUFFIXES, key=lambda suffix: (suffix not in (".jpg", ".jpeg", ".png"), suffix)):
            for ending in (suffix, suffix.upper()):
                if any((self.root / f"{path}{ending}").is_file() for path in first):
                    request.note(f"{self.file}: paths without a suffix are read as {first[0]}{ending}")
                    return ending
        return ""

    def _check_first_images(self, rows: list[Row]) -> None:
        first = [self.root / (row.path + self._suffix) for row in rows[:CHECKED]]
        if not any(path.is_file() for path in first):
            number = f"of the first {len(first)} images" if len(rows) > len(first) else f"of its {len(first)} images"
            windows = "; replace \\ between folders by /" if "\\" in rows[0].path and os.sep == "/" else ""
            raise FgvcError(
                f"{self.file}: none {number} exists, such as {first[0]}; paths are relative to {self.root}, which "
                f"`dataset.root` changes{windows}"
            )


def _check_file(file: Path) -> None:
    if not file.exists():
        near = did_you_mean(file.name, os.listdir(file.parent)) if file.parent.is_dir() else ""  # noqa: PTH208
        raise FgvcError(f"{file}: no such file.{near}" if near else f"{file}: no such file")
    if not file.is_file():
        raise FgvcError(f"{file} is not a file; the dataset 'table' reads a CSV or TSV file")


def _root(file: Path, options: TableOptions) -> Path:
    """Return the folder that paths are relative to.

    `root` is relative to the table's folder, not to the working directory, so that a run's config means the same folder
    wherever it is resumed.
    """
    if options.root is None:
        return file.parent
    root = Path(os.path.normpath(file.parent / Path(options.root).expanduser()))
    if not root.is_dir():
        raise UsageError(f"`dataset.root={options.root}`: no such folder: {root}")
    return root


def _by_split(rows: Iterable[Row], file: Path, request: DatasetRequest) -> dict[str, list[Row]]:
    """Group rows by split, "train" first, each image once per split; repetitions are noted.

    Raises:
        FgvcError: an image has two labels.
    """
    found: dict[str, list[Row]] = {name: [] for name in SPLITS}
    first_of: dict[str, dict[str, Row]] = {}
    repeated: list[Row] = []
    for row in rows:
        before = first_of.setdefault(os.path.normpath(row.path), {})
        other = next((earlier for earlier in before.values() if earlier.label != row.label), None)
        if other is not None:
            raise FgvcError(
                f"{file}, line {row.line}: {row.path} is '{row.label}' here and '{other.label}' in line {other.line}; "
                "an image has one label"
            )
        if row.split in before:
            repeated.append(row)
        else:
            before[row.split] = row
            found[row.split].append(row)
    _note_repeated(repeated, [list(seen.values()) for seen in first_of.values() if len(seen) > 1], file, request)
    return {name: rows for name, rows in found.items() if rows}


def _note_repeated(repeated: list[Row], shared: list[list[Row]], file: Path, request: DatasetRequest) -> None:
    if repeated:
        lines = ", ".join(str(row.line) for row in islice(repeated, 5)) + (", ..." if len(repeated) > 5 else "")
        ignored = "1 row is" if len(repeated) == 1 else f"{len(repeated):,} rows are"
        request.note(f"{file}: {ignored} ignored, as repetition of an image in the same split (line {lines})")
    if shared:
        number = "1 image is" if len(shared) == 1 else f"{len(shared):,} images are"
        splits = " and ".join(row.split for row in shared[0])
        request.note(f"{file}: {number} in more than one split, such as {shared[0][0].path} in {splits}")


def _sorted_names(names: Iterable[str]) -> tuple[str, ...]:
    """Sort class names, by value if all of them are integers."""
    ordered = sorted(names)
    return tuple(sorted(ordered, key=int) if all(map(INTEGER.fullmatch, ordered)) else ordered)
