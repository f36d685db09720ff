"""Leave images out of a dataset: those that a CSV file lists, such as the one that an audit writes."""

from __future__ import annotations

import csv
import logging
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fgvc_cli.contracts import Dataset, Split
from fgvc_cli.data.splits import quoted_names, subset
from fgvc_cli.data.wrapping import WrappedDataset
from fgvc_cli.errors import FgvcError
from fgvc_cli.files import csv_text
from fgvc_cli.formatting import counted

logger = logging.getLogger(__name__)

COLUMNS = ("file", "split")
"""Columns that the file must have."""

MARK = "exclude"
"""Column that marks rows to leave out with "yes" and others with "no"; without it, every row is left out."""


DELIMITERS = ",;\t"
"""Between columns, by what the first line has most of: spreadsheets write semicolons or tabs in some languages."""


@dataclass(frozen=True)
class Exclusion:
    """Images to leave out.

    Attributes:
        path: the CSV file.
        keys: of the images, by the name of their split.
    """

    path: Path
    keys: Mapping[str, frozenset[str]]

    @classmethod
    def read(cls, path: Path) -> Exclusion:
        """Read a CSV file with the columns `COLUMNS` and, optionally, `MARK`.

        Raises:
            FgvcError: the file is missing, cannot be read, lacks a column, or has a mark other than "yes" and "no".
        """
        what, keys = f"`exclude={path}`", dict[str, set[str]]()
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                first = file.readline()
                file.seek(0)
                rows = csv.DictReader(file, delimiter=max(DELIMITERS, key=first.count))
                rows.fieldnames = [name.strip().lower() for name in rows.fieldnames or ()]
                missing = [name for name in COLUMNS if name not in rows.fieldnames]
                if missing:
                    raise FgvcError(
                        f"{what} has no column '{missing[0]}': give the CSV file of an audit, or one with the columns "
                        f"{' and '.join(COLUMNS)}"
                    )
                for row in rows:
                    if not any(map(row.get, COLUMNS)):  # a spreadsheet's blank line
                        continue
                    mark = (row.get(MARK) or "yes").strip().lower()
                    if mark not in ("yes", "no"):
                        raise FgvcError(f"{what}, line {rows.line_num}: {MARK} is '{mark}'; write yes or no")
                    if mark == "yes":
                        split, key = (_normal(csv_text(row[name] or "")) for name in ("split", "file"))
                        keys.setdefault(split, set()).add(key)
        except OSError as error:
            raise FgvcError(f"{what} cannot be read: {error.strerror or error}") from error
        except (UnicodeDecodeError, csv.Error) as error:
            raise FgvcError(f"{what} is not a CSV file in UTF-8: {error}") from error
        return cls(path, {split: frozenset(names) for split, names in keys.items()})

    def __len__(self) -> int:
        return sum(map(len, self.keys.values()))

    def of(self, split: str) -> frozenset[str]:
        """Return the keys to leave out of a split; in "train+val" they start with the name of their split."""
        if split not in self.keys and "+" in split:
            return frozenset(f"{name}/{key}" for name in split.split("+") for key in self.keys.get(name, ()))
        return self.keys.get(split, frozenset())

    def apply(self, split: Split, keys: frozenset[str] | None = None) -> Split:
        """Return a split without these images (default: those of the split's name).

        Raises:
            FgvcError: no image is left.
        """
        gone = self.of(split.name) if keys is None else keys
        kept = [i for i, key in enumerate(split.keys) if _normal(key) not in gone]
        left_out = len(split) - len(kept)
        if not left_out:
            return split
        if not kept:
            raise FgvcError(f"`exclude={self.path}` leaves no image in {split.name}; remove rows from the file")
        note = f"without {counted(left_out, 'excluded image')}"
        return subset(split, kept, split.name, f"{split.origin}, {note}" if split.origin else note)


class ExcludingDataset(WrappedDataset):
    """A dataset without the images of an exclusion.

    Raises:
        FgvcError: the exclusion names a split that the dataset does not have; in `split`: it names an image that the
            split does not have, or all training images of a class.
    """

    def __init__(self, dataset: Dataset, exclusion: Exclusion) -> None:
        super().__init__(dataset)
        self.exclusion = exclusion
        unknown = [name for name in exclusion.keys if name not in dataset.splits()]
        if unknown:
            raise FgvcError(
                f"`exclude={exclusion.path}` names the split '{unknown[0]}', and {dataset.name} has "
                f"{', '.join(dataset.splits())}: is it the file of another dataset?"
            )
        logger.info(f"{counted(len(exclusion), 'image')} {'is' if len(exclusion) == 1 else 'are'} excluded by "
                    f"{exclusion.path}")  # fmt: skip

    def split(self, name: str) -> Split:
        """Return a split without the excluded images."""
        whole, path = self.dataset.split(name), self.exclusion.path
        unknown = sorted(self.exclusion.of(name) - set(map(_normal, whole.keys)))
        if unknown:
            raise FgvcError(
                f"`exclude={path}` names {counted(len(unknown), 'image')} that {name} of {self.name} does not "
                f"have ({quoted_names(unknown)}): audit the data again, or remove these rows"
            )
        left = self.exclusion.apply(whole)
        if name == "train" and left is not whole:
            self._check_classes(whole.labels, left.labels)
        return left

    def attribute(self, name: str, split: str) -> Sequence[str]:
        """Return the value of an attribute for each image of a split that is not excluded."""
        gone = self.exclusion.of(split)
        values = zip(self.dataset.split(split).keys, self.dataset.attribute(name, split), strict=True)
        return [value for key, value in values if _normal(key) not in gone]

    def identity(self) -> dict[str, Any]:
        """Return what the dataset records, the file of the exclusion, and the number of images left out."""
        return {**self.dataset.identity(), "exclude": str(self.exclusion.path), "excluded": len(self.exclusion)}

    def _check_classes(self, before: Sequence[int], after: Sequence[int]) -> None:
        gone = [self.class_names[label] for label in np.setdiff1d(before, after)]
        if gone:
            raise FgvcError(
                f"`exclude={self.exclusion.path}` leaves no training image of {quoted_names(gone)}; remove rows "
                "from the file"
            )


def _normal(name: str) -> str:
    return unicodedata.normalize("NFC", name)
