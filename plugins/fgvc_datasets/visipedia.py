"""The layout that CUB-200-2011 and NABirds share: four lists, and a folder of images."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from fgvc_cli.contracts import DatasetRequest
from fgvc_cli.errors import FgvcError
from fgvc_datasets.named import NamedDataset
from fgvc_datasets.published_lists import DAMAGED, origin_of, pairs_of, value_of

LISTS = ("images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt")


class VisipediaDataset(NamedDataset):
    """Images by `images.txt`, classes by `image_class_labels.txt` and `classes.txt`, splits by `train_test_split.txt`.

    Classes are those that have images, in the order of their published numbers.
    """

    below: ClassVar[str]
    """Where lists and images lie in the dataset's folder; "" if directly in it."""
    published: ClassVar[Mapping[str, int]]
    """How many images "train" and "test" have as published."""

    @classmethod
    def needed(cls) -> tuple[str, ...]:
        """Return the files and folders that must be there, relative to the dataset's folder."""
        return tuple(Path(cls.below, name).as_posix() for name in (*LISTS, "images"))

    @abstractmethod
    def readable_names(self, published: Mapping[str, str]) -> dict[str, str]:
        """Return a name to read for each class number; all are different.

        Args:
            published: names as in `classes.txt`, by class number.
        """

    def read(self, request: DatasetRequest) -> None:
        """Read the four lists.

        Raises:
            FgvcError: one cannot be read, or they do not go together.
        """
        base = self.folder / self.below
        paths, classes, training, names = (base / name for name in LISTS)
        images, class_of, in_training = pairs_of(paths), pairs_of(classes), pairs_of(training)
        labels = {image: value_of(class_of, image, classes) for image in images}
        self.class_names, index_of = self._classes(set(labels.values()), names)
        members: dict[str, list[str]] = {"train": [], "test": []}
        for image in images:
            flag = value_of(in_training, image, training)
            if flag not in ("0", "1"):
                raise FgvcError(
                    f"{training}: image '{image}' has '{flag}', neither 1 (training) nor 0 (test); {DAMAGED}."
                )
            members["train" if flag == "1" else "test"].append(image)
        for split, chosen in members.items():
            keys = [images[image] for image in chosen]
            files = [base / "images" / key for key in keys]
            origin = origin_of(request, split, len(keys), self.published)
            self.add(split, files, [index_of[labels[image]] for image in chosen], origin, keys)

    def _classes(self, numbers: set[str], path: Path) -> tuple[tuple[str, ...], dict[str, int]]:
        """Return the names of the classes with these numbers, in the order of the numbers, and the index of each."""
        published = pairs_of(path)
        strange = [number for number in sorted(numbers) if not number.isdecimal()]
        if strange:
            raise FgvcError(f"{path.with_name(LISTS[1])}: '{strange[0]}' is no class number; {DAMAGED}.")
        ordered = sorted(numbers, key=int)
        names = self.readable_names({number: value_of(published, number, path) for number in ordered})
        return tuple(names[number] for number in ordered), {number: i for i, number in enumerate(ordered)}


def told_apart(names: Mapping[str, str]) -> dict[str, str]:
    """Return names by class number, with the number behind those that several classes have."""
    count = Counter(names.values())
    return {number: name if count[name] == 1 else f"{name} [{number}]" for number, name in names.items()}
