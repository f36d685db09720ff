"""CUB-200-2011 and NABirds, which share a layout: four lists and a folder of images."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

from fgvc_cli.contracts import DatasetRequest, Download, Taxonomy
from fgvc_cli.errors import FgvcError
from fgvc_datasets.published import DAMAGED, PublishedDataset, origin_of, pairs_of, value_of

LISTS = ("images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt")


def _files(folder: str) -> tuple[str, ...]:
    return tuple(Path(folder, name).as_posix() for name in (*LISTS, "images"))


class VisipediaDataset(PublishedDataset):
    """A dataset in the layout of Visipedia.

    Images are listed in `images.txt`, their classes in `image_class_labels.txt` and `classes.txt`, the splits in
    `train_test_split.txt`. The classes are those with images, in the order of their published numbers.
    """

    below: ClassVar[str]
    """Folder of lists and images in the dataset's folder; "" if they are directly in it."""
    published: ClassVar[Mapping[str, int]]
    """Published number of images of "train" and "test"."""

    @abstractmethod
    def readable_names(self, published: Mapping[str, str]) -> dict[str, str]:
        """Return a unique readable name per class number, from the names in `classes.txt`."""

    def read(self, request: DatasetRequest) -> None:
        """Read the four lists.

        Raises:
            FgvcError: a list cannot be read, or the lists contradict each other.
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
                raise FgvcError(f"{training}: image '{image}' has '{flag}', not 1 (training) or 0 (test); {DAMAGED}")
            members["train" if flag == "1" else "test"].append(image)
        for split, chosen in members.items():
            keys = [images[image] for image in chosen]
            files = [base / "images" / key for key in keys]
            origin = origin_of(request, split, len(keys), self.published)
            self.add(split, files, [index_of[labels[image]] for image in chosen], origin, keys)

    def _classes(self, numbers: set[str], path: Path) -> tuple[tuple[str, ...], dict[str, int]]:
        """Return the names of the classes with these numbers, in the order of the numbers, and the index of each."""
        published = pairs_of(path)
        invalid = [number for number in sorted(numbers) if not number.isdecimal()]
        if invalid:
            raise FgvcError(f"{path.with_name(LISTS[1])}: '{invalid[0]}' is not a class number; {DAMAGED}")
        ordered = sorted(numbers, key=int)
        names = self.readable_names({number: value_of(published, number, path) for number in ordered})
        return tuple(names[number] for number in ordered), {number: i for i, number in enumerate(ordered)}


class Cub200Dataset(VisipediaDataset):
    """11,788 photographs of 200 bird species, of which the published list assigns 5,994 to training and 5,794 to test.

    Class names are the published ones without number and underscores ("001.Black_footed_Albatross" becomes "Black
    footed Albatross"), in the order of the numbers. Whole photographs are used, as is usual; the published bounding
    boxes are not. Nor are the published part locations: the dataset does not say which part distinguishes a class.

    Reference: Wah et al. 2011, Caltech technical report CNS-TR-2011-001.
    """

    title = "cub200"
    below = "CUB_200_2011"
    published = MappingProxyType({"train": 5994, "test": 5794})
    needed = _files(below)
    downloads = (
        Download(
            url="https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
            file="CUB_200_2011.tgz",
            checksum="md5:97eceeb196236b17998738112f37df78",
            size=1_150_585_339,
            unpack="",
            gives=needed,
        ),
    )
    by_hand = "Unpack CUB_200_2011.tgz in {folder}, or link an existing folder CUB_200_2011 into it."
    homepage = "https://www.vision.caltech.edu/datasets/cub_200_2011/"
    license = "photographs from Flickr, which belong to their photographers; see the homepage"

    def taxonomy(self) -> Taxonomy:
        """Return the last word of each name, such as Gull: the dataset lists neither genera nor families."""
        return Taxonomy(("species", "last word"), {name: (name.split()[-1],) for name in self.class_names})

    def readable_names(self, published: Mapping[str, str]) -> dict[str, str]:
        """Return the names without number and underscores."""
        names = {}
        for number, name in published.items():
            prefix, dot, rest = name.partition(".")
            names[number] = (rest if dot and prefix.isdecimal() and rest else name).replace("_", " ")
        return _unique(names)


class NabirdsDataset(VisipediaDataset):
    """48,562 photographs of 555 classes, of which the published list assigns 23,929 to training and 24,633 to test.

    The published class numbers go up to 1,010, because they include groups of birds without images of their own; the
    555 with images are the classes. Several classes with the same name get their number appended.

    Reference: Van Horn et al. 2015, CVPR.
    """

    title = "nabirds"
    below = ""
    published = MappingProxyType({"train": 23929, "test": 24633})
    needed = _files(below)
    by_hand = (
        "The archive has no public link. Fill in the form on https://dl.allaboutbirds.org/nabirds, accept the "
        "terms, download nabirds.tar.gz (md5 df21a9e4db349a14e2b08adfd45873bd), and unpack it: "
        "tar xzf nabirds.tar.gz -C {root}"
    )
    homepage = "https://dl.allaboutbirds.org/nabirds"
    license = "the terms that the form asks you to accept"

    def taxonomy(self) -> Taxonomy | None:
        """Return the groups of birds that `hierarchy.txt` (class number, number of its group) has; None without it."""
        path = self.folder / "hierarchy.txt"
        if not path.is_file():
            return None
        above, names = pairs_of(path), pairs_of(self.folder / LISTS[3])
        paths = {}
        for number, name in self._numbers.items():
            groups: list[str] = []
            while (number := above.get(number, "")) in above:  # the root, all birds, is left out
                if number in groups:
                    raise FgvcError(f"{path}: class {number} is a group of itself; {DAMAGED}")
                groups.append(number)
            paths[name] = [value_of(names, group, path) for group in reversed(groups)]
        return Taxonomy.of_paths(paths)

    def readable_names(self, published: Mapping[str, str]) -> dict[str, str]:
        """Return the published names."""
        self._numbers = _unique(published)
        return self._numbers


def _unique(names: Mapping[str, str]) -> dict[str, str]:
    """Return names by class number, with the number appended to names of several classes."""
    count = Counter(names.values())
    return {number: name if count[name] == 1 else f"{name} [{number}]" for number, name in names.items()}
