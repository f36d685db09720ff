"""X"""

from __future__ import annotations

import shlex
from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

from fgvc_cli.contracts import DatasetRequest, Download, Provision
from fgvc_cli.errors import FgvcError
from fgvc_datasets.published import DAMAGED, PublishedDataset, origin_of, pairs_of, value_of

LISTS = ("images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt")


class VisipediaDataset(PublishedDataset):
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


class Cub200Dataset(VisipediaDataset):
    """11,788 photographs, of which the published list gives 5,994 to training and 5,794 to the test.

    Class names are the published ones without their number and with blanks ("001.Black_footed_Albatross" becomes
    "Black footed Albatross"); their order is that of the numbers. Whole photographs are used, as the field does; the
    published bounding boxes are not. Nor are the published points of parts: nobody says which part decides a class.
    """

    title = "cub200"
    below = "CUB_200_2011"
    published = MappingProxyType({"train": 5994, "test": 5794})

    @classmethod
    def provision(cls, request: DatasetRequest, options: Any) -> Provision:  # noqa: ARG003
        """Return what is needed and the official archive that has it."""
        archive = Download(
            url="https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
            file="CUB_200_2011.tgz",
            checksum="md5:97eceeb196236b17998738112f37df78",
            size=1_150_585_339,
            unpack="",
            gives=cls.needed(),
        )
        folder = request.root / cls.title
        return Provision(
            folder=folder,
            needed=cls.needed(),
            downloads=(archive,),
            by_hand=f"Unpack CUB_200_2011.tgz in {folder}, or link a folder CUB_200_2011 that you have into it.",
            homepage="https://www.vision.caltech.edu/datasets/cub_200_2011/",
            license="photographs from Flickr, which belong to their photographers; see the homepage",
        )

    def readable_names(self, published: Mapping[str, str]) -> dict[str, str]:
        """Return the names without number and underscores."""
        return told_apart({number: _readable(name) for number, name in published.items()})


def _readable(name: str) -> str:
    number, dot, rest = name.partition(".")
    return (rest if dot and number.isdecimal() and rest else name).replace("_", " ")


class NabirdsDataset(VisipediaDataset):
    """48,562 photographs of 555 classes, of which the published list gives 23,929 to training and 24,633 to the test.

    The published numbers of the classes run to 1,010, because they also count groups of birds that have no images of
    their own; only the 555 with images are classes here. Where classes should share a name, their number follows it.
    """

    title = "nabirds"
    below = ""
    published = MappingProxyType({"train": 23929, "test": 24633})

    @classmethod
    def provision(cls, request: DatasetRequest, options: Any) -> Provision:  # noqa: ARG003
        """Return what is needed; the archive is given out by a form only."""
        return Provision(
            folder=request.root / cls.title,
            needed=cls.needed(),
            by_hand=(
                "The archive has no public link. Fill in the form on https://dl.allaboutbirds.org/nabirds, accept the "
                "terms, download nabirds.tar.gz (md5 df21a9e4db349a14e2b08adfd45873bd), and unpack it: "
                f"tar xzf nabirds.tar.gz -C {shlex.quote(str(request.root))}"
            ),
            homepage="https://dl.allaboutbirds.org/nabirds",
            license="the terms that the form asks you to accept",
        )

    def readable_names(self, published: Mapping[str, str]) -> dict[str, str]:
        """Return the published names."""
        return told_apart(published)
