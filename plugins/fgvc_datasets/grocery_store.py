"""The Grocery Store dataset: fruit, vegetables and cartons in shops (Klasson, Zhang, Kjellström, WACV 2019)."""

from __future__ import annotations

import csv
from pathlib import Path

from fgvc_cli.contracts import DatasetRequest, Download, Taxonomy
from fgvc_cli.errors import FgvcError
from fgvc_datasets.options import GroceryStoreOptions
from fgvc_datasets.published import DAMAGED, PublishedDataset, lines_of, origin_of

COMMIT = "fc80ba90f803d79d0383df52c5a4ac5de99ff6fc"
REPOSITORY = "https://github.com/marcusklasson/GroceryStoreDataset"
PUBLISHED = {"train": 2640, "val": 296, "test": 2485}
FILES = ("dataset/classes.csv", *(f"dataset/{s}.txt" for s in PUBLISHED), *(f"dataset/{s}" for s in PUBLISHED))
COLUMNS = ("Class Name (str)", "Class ID (int)", "Coarse Class Name (str)", "Coarse Class ID (int)")
"""The first columns of classes.csv."""


class GroceryStoreDataset(PublishedDataset):
    """5,421 smartphone photographs: 2,640 for training, 296 for validation, 2,485 for the test.

    The validation split has images of 60 of the 81 fine classes. The paper counts 42 coarse classes, the published
    lists have 43. The product pictures on a white background ("iconic images") are not part of the splits.
    """

    title = "grocery_store"
    needed = FILES
    downloads = (
        Download(url=f"{REPOSITORY}/archive/{COMMIT}.tar.gz", file=f"{COMMIT}.tar.gz", unpack="", strip=1, gives=FILES),
    )
    by_hand = f"Clone the repository: git clone {REPOSITORY} {{folder}}"
    homepage = REPOSITORY
    license = "MIT"
    options: GroceryStoreOptions

    def read(self, request: DatasetRequest) -> None:
        """Read classes.csv and the three lists.

        Raises:
            FgvcError: a file cannot be read, or the files contradict each other.
        """
        base = self.folder / "dataset"
        names, self._coarse = _class_names(base / "classes.csv", self.options.level)
        self.class_names = tuple(names.values())
        index_of = {number: index for index, number in enumerate(names)}
        for split in PUBLISHED:
            path = base / f"{split}.txt"
            keys, numbers = _images(path, self.options.level)
            unknown = next((number for number in numbers if number not in index_of), None)
            if unknown is not None:
                raise FgvcError(f"{path}: class {unknown} is not in classes.csv; {DAMAGED}")
            origin = origin_of(request, split, len(keys), PUBLISHED)
            self.add(split, [base / key for key in keys], [index_of[number] for number in numbers], origin, keys)

    def taxonomy(self) -> Taxonomy | None:
        """Return the coarse class of each fine class."""
        return Taxonomy(("fine", "coarse"), self._coarse) if self.options.level == "fine" else None


def _class_names(path: Path, level: str) -> tuple[dict[int, str], dict[str, tuple[str, ...]]]:
    """Return the names of fine or coarse classes by number, ascending, and the coarse class of each fine one."""
    lines = [line for _, line in lines_of(path)]
    header, *rows = csv.reader(lines) if lines else [[]]
    if tuple(header[:4]) != COLUMNS:
        raise FgvcError(f"{path}: does not begin with '{','.join(COLUMNS)}'; {DAMAGED}")
    name, number = (0, 1) if level == "fine" else (2, 3)
    try:
        coarse: dict[str, tuple[str, ...]] = {row[0]: (row[2],) for row in rows}
        return dict(sorted((int(row[number]), row[name]) for row in rows)), coarse
    except (IndexError, ValueError) as error:
        raise FgvcError(f"{path}: a line lacks a class name or number; {DAMAGED}") from error


def _images(path: Path, level: str) -> tuple[list[str], list[int]]:
    """Return the paths in a list as written there, and the numbers of their fine or coarse classes."""
    keys: list[str] = []
    numbers: list[int] = []
    for line_number, line in lines_of(path):
        try:
            key, fine, coarse = line.rsplit(",", 2)
            numbers.append(int(fine if level == "fine" else coarse))
        except ValueError as error:
            raise FgvcError(f"{path}, line {line_number}: '{line[:80]}' is not a path and two class numbers") from error
        keys.append(key.strip())
    return keys, numbers
