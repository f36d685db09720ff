"""iNaturalist: plants, animals and fungi (Van Horn et al., CVPR 2018 and CVPR 2021).

Links and checksums: https://github.com/visipedia/inat_comp (the page of each year) and torchvision's `INaturalist`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fgvc_cli.contracts import DatasetRequest, Download, Provision, Taxonomy
from fgvc_cli.errors import UsageError, did_you_mean
from fgvc_datasets.torchvision_dataset import Listing, TorchvisionDataset

SITE = "https://ml-inat-competition-datasets.s3.amazonaws.com/"


@dataclass(frozen=True)
class Version:
    """One of the yearly datasets.

    Attributes:
        images: folder of the training images, and of all images before 2021, as torchvision names it.
        published: number of images of the official training and validation splits.
        downloads: all archives.
    """

    images: str
    published: dict[str, int]
    downloads: tuple[Download, ...]

    @property
    def needed(self) -> tuple[str, ...]:
        """Return the required files and folders."""
        return tuple(name for download in self.downloads for name in download.results)


def _images(path: str, folder: str, md5: str, gigabytes: float) -> Download:
    """Return an archive whose single folder is renamed to `folder`."""
    file = f"{folder}.tar.gz"
    return Download(
        f"{SITE}{path}", file, f"md5:{md5}", about=round(gigabytes * 1e9), unpack=folder, strip=1, gives=(folder,)
    )


def _lists(year: str, file: str, md5: str = "", gives: tuple[str, ...] = ()) -> Download:
    """Return an archive of lists; each year has its own folder, because 2018 and 2019 have files of the same name."""
    folder = f"lists/{year}"
    results = tuple(f"{folder}/{name}" for name in gives or (file.removesuffix(".tar.gz"),))
    checksum = f"md5:{md5}" if md5 else ""
    return Download(f"{SITE}{year}/{file}", f"{year}_{file}", checksum, unpack=folder, gives=results)


VALIDATION_2021 = _images("2021/val.tar.gz", "2021_valid", "f6f6e0e242e3d4c9569ba56400938afc", 8.4)

VERSIONS = {
    "2021": Version(
        "2021_train",
        {"train": 2_686_843, "validation": 100_000},
        (_images("2021/train.tar.gz", "2021_train", "e0526d53c7f7b2e3167b2b43bb2690ed", 224), VALIDATION_2021),
    ),
    "2021_mini": Version(
        "2021_train_mini",
        {"train": 500_000, "validation": 100_000},
        (_images("2021/train_mini.tar.gz", "2021_train_mini", "db6ed8330e634445efc8fec83ae81442", 42), VALIDATION_2021),
    ),
    "2019": Version(
        "2019",
        {"train": 265_213, "validation": 3_030},
        (
            _images("2019/train_val2019.tar.gz", "2019", "c60a6e2962c9b8ccbd458d12c8582644", 74),
            _lists("2019", "train2019.json.tar.gz", "b06a6683537867c0d5c7a45f407a306d"),
            _lists("2019", "val2019.json.tar.gz", "5cc5509b0fe495f1c8c1362612448497"),
            _lists("2019", "categories.json.tar.gz"),
        ),
    ),
    "2018": Version(
        "2018",
        {"train": 437_513, "validation": 24_426},
        (
            _images("2018/train_val2018.tar.gz", "2018", "b1c6952ce38f31868cc50ea72d066cc3", 120),
            _lists("2018", "train2018.json.tar.gz", "bfa29d89d629cbf04d826a720c0a68b0"),
            _lists("2018", "val2018.json.tar.gz", "f2ed8bfe3e9901cdefceb4e53cd3775d"),
            _lists("2018", "categories.json.tar.gz"),
        ),
    ),
    "2017": Version(
        "2017",
        {"train": 579_184, "validation": 95_986},
        (
            _images("2017/train_val_images.tar.gz", "2017", "7c784ea5e424efaec655bd392f87301f", 186),
            _lists("2017", "train_val2017.zip", gives=("train2017.json", "val2017.json")),
        ),
    ),
}
"""By the name of the option."""


RANKS = ("kingdom", "phylum", "class", "order", "family", "genus")
"""Ranks above the species, highest first."""

Lineage = tuple[str, ...]
"""The names of all ranks above a taxon, and its own."""


def lineage(category: Mapping[str, str], level: str) -> Lineage:
    """Return the taxon that a category of the published lists belongs to at a level: a rank or "supercategory".

    Raises:
        UsageError: the lists lack that level.
    """
    known = [rank for rank in RANKS if rank in category]
    if level == "species":
        above = known or [rank for rank in ("supercategory",) if rank in category]
        return (*(category[rank] for rank in above), category["name"])
    if level not in category:
        levels = ["species", *reversed(known), *(["supercategory"] if "supercategory" in category else [])]
        near = did_you_mean(level, levels)
        raise UsageError(f"`dataset.level={level}`: the levels of this version are {', '.join(levels)}.{near}")
    if level == "supercategory":
        return (category[level],)
    return tuple(category[rank] for rank in known[: known.index(level) + 1])


def levels_of(category: Mapping[str, str], level: str) -> tuple[str, ...]:
    """Return the names of the levels of a lineage, as `lineage` returns it, from the taxon upward."""
    known = [rank for rank in RANKS if rank in category]
    if level == "species":
        return ("species", *reversed(known)) if known else ("species", "supercategory")
    return (level,) if level == "supercategory" else tuple(reversed(known[: known.index(level) + 1]))


def taxonomy_of(taxa: Sequence[Lineage], levels: Sequence[str]) -> Taxonomy | None:
    """Return the taxonomy of taxa, with unique names on every level; None without a level above theirs."""
    if len(levels) < 2:
        return None
    unique = []
    for end in range(1, len(levels)):
        groups = list(dict.fromkeys(taxon[:end] for taxon in taxa))
        unique.append(dict(zip(groups, distinct_names(groups), strict=True)))
    ancestors = {
        name: tuple(unique[end - 1][taxon[:end]] for end in reversed(range(1, len(levels))))
        for name, taxon in zip(distinct_names(taxa), taxa, strict=True)
    }
    return Taxonomy(tuple(levels), ancestors)


def distinct_names(lineages: Sequence[Lineage]) -> list[str]:
    """Name distinct taxa; equal names get the kingdom appended, or all ranks above them.

    Oenanthe, for instance, is a genus of birds and a genus of plants.
    """
    names = [taxon[-1] for taxon in lineages]
    for qualifier in (lambda taxon: taxon[0], lambda taxon: " ".join(taxon[:-1])):
        counts = Counter(names)
        names = [
            f"{taxon[-1]} ({qualifier(taxon)})" if counts[name] > 1 and len(taxon) > 1 else name
            for name, taxon in zip(names, lineages, strict=True)
        ]
    return names


Sample = tuple[str, int]
"""An image, relative to the dataset's folder, and the index of its category."""


class InatDataset(TorchvisionDataset):
    """The competition data of a year, with classes at the rank `level`.

    The labels of the official test images are not public, so the literature reports the accuracy on the official
    validation split; it is used as "test", and there is no "val". Class names of 2018 and 2019, which the competitions
    hid, were published afterwards.
    """

    title = "inat"

    @classmethod
    def provision(cls, request: DatasetRequest, options: Any) -> Provision:
        """Return the folders of images of the version, its lists (before 2021), and their archives."""
        version = VERSIONS[options.version]
        as_by_torchvision = (request.root / version.images).is_dir()
        return Provision(
            folder=request.root if as_by_torchvision else request.root / cls.title,
            needed=version.needed,
            downloads=version.downloads,
            by_hand=(
                "An archive may also be unpacked by hand: its single folder is renamed to the archive's name. "
                f"Folders of images that torchvision's INaturalist created in {request.root} are used in place."
            ),
            homepage=f"https://github.com/visipedia/inat_comp/tree/master/{options.version[:4]}",
            license="non-commercial research and education; the photographs may not be passed on",
        )

    def published_images(self) -> Mapping[str, int]:
        """Return the number of images of the official splits of the version."""
        return VERSIONS[self.options.version].published

    def official_splits(self) -> Mapping[str, str]:
        """Return the official split of each split."""
        return {"train": "train", "test": "validation"}

    def origin(self, name: str, official: str) -> str:
        """Return the origin, which names the validation split used as test."""
        if name == official:
            return super().origin(name, official)
        return "the official validation split, as the literature reports it: the official test labels are not public"

    def lists(self, split: str) -> tuple[str, ...]:
        """Return the folder of a split of 2021, or the lists of a split of an earlier year."""
        if self._is_2021:
            return (VERSIONS[self.options.version].needed[0 if split == "train" else 1],)
        folder = f"lists/{self.options.version}"
        own = f"{folder}/{'train' if split == 'train' else 'val'}{self.options.version}.json"
        return (own,) if self.options.version == "2017" else (own, f"{folder}/categories.json")

    def listing(self, split: str) -> Listing:
        """Read a split: of 2021 from folders with torchvision, of earlier years from the lists."""
        categories, samples = self._by_folders(split) if self._is_2021 else self._by_lists(split)
        taxa = [lineage(category, self.options.level) for category in categories]
        classes = list(dict.fromkeys(taxa))
        self._taxonomy = taxonomy_of(classes, levels_of(categories[0], self.options.level)) if categories else None
        index = {taxon: label for label, taxon in enumerate(classes)}
        labels = [index[taxon] for taxon in taxa]
        return Listing(distinct_names(classes), [name for name, _ in samples], [labels[c] for _, c in samples])

    def taxonomy(self) -> Taxonomy | None:
        """Return the ranks above the classes: genus to kingdom, or (2017) the supercategory."""
        return self._taxonomy

    @property
    def _is_2021(self) -> bool:
        return bool(self.options.version.startswith("2021"))

    def _by_folders(self, split: str) -> tuple[list[dict[str, str]], list[Sample]]:
        """Read the folders "<number>_<kingdom>_..._<genus>_<epithet>"; torchvision checks names and numbers."""
        from torchvision.datasets import INaturalist

        folder = self.lists(split)[0]
        listed = INaturalist(self.folder, folder)
        categories = []
        for name in listed.all_categories:
            _, *ranks, epithet = name.split("_")
            categories.append({**dict(zip(RANKS, ranks, strict=True)), "name": f"{ranks[-1]} {epithet}"})
        found = sorted(listed.index)  # the order of the file system is arbitrary
        return categories, [(f"{folder}/{listed.all_categories[c]}/{file}", c) for c, file in found]

    def _by_lists(self, split: str) -> tuple[list[dict[str, str]], list[Sample]]:
        """Read lists in COCO's format."""
        published, *names = (json.loads((self.folder / name).read_text("utf-8")) for name in self.lists(split))
        categories = sorted(names[0] if names else published["categories"], key=lambda category: category["id"])
        position = {category["id"]: i for i, category in enumerate(categories)}
        category_of = {a["image_id"]: position[a["category_id"]] for a in published["annotations"]}
        return categories, [
            (f"{self.options.version}/{_below(image['file_name'])}", category_of[image["id"]])
            for image in published["images"]
        ]


def _below(file_name: str) -> str:
    """Remove the archive's own folder, which torchvision replaces by the version's."""
    _, slash, rest = file_name.partition("/")
    if not slash:
        raise ValueError(f"{file_name!r} is not the path of an image")
    return rest
