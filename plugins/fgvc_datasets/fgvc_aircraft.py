"""FGVC-Aircraft: aircraft by variant, family or manufacturer (Maji et al. 2013, arXiv 1306.5151)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fgvc_cli.contracts import DatasetRequest, Download, Provision, Taxonomy
from fgvc_datasets.published import pairs_of
from fgvc_datasets.torchvision_dataset import Listing, TorchvisionDataset

SITE = "https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/"
PUBLISHED = {"train": 3334, "val": 3333, "test": 3333}
CLASSES = {"variant": "variants.txt", "family": "families.txt", "manufacturer": "manufacturers.txt"}
"""The list of classes per level."""


def _list(level: str, split: str) -> str:
    return f"data/images_{level}_{split}.txt"


LISTS = {level: (f"data/{file}", *(_list(level, split) for split in PUBLISHED)) for level, file in CLASSES.items()}
"""All lists of each level."""


class FgvcAircraftDataset(TorchvisionDataset):
    """10,000 photographs, about 100 per variant, in three official splits that are the same at every level.

    Whole photographs are used as published, with the line at the bottom that credits the photographer.
    """

    title = "fgvc_aircraft"
    folder_name = "fgvc-aircraft-2013b"
    published = PUBLISHED
    downloads = (
        Download(
            url=f"{SITE}archives/fgvc-aircraft-2013b.tar.gz",
            file="fgvc-aircraft-2013b.tar.gz",
            checksum="md5:d4acdd33327262359767eeaa97a4f732",
            size=2_753_340_328,
            unpack="",
            strip=1,
            gives=("data/images", *(name for lists in LISTS.values() for name in lists)),
        ),
    )
    homepage = SITE
    license = "non-commercial research only; the photographs belong to their photographers"

    @classmethod
    def provision(cls, request: DatasetRequest, options: Any) -> Provision:
        """Return the folder of images and the lists of the level, and the archive of all levels."""
        return replace(super().provision(request, options), needed=("data/images", *LISTS[options.level]))

    def lists(self, split: str) -> tuple[str, ...]:
        """Return the split's list and the list of classes."""
        return _list(self.options.level, split), LISTS[self.options.level][0]

    def taxonomy(self) -> Taxonomy | None:
        """Return family and manufacturer of each class, from the lists of these levels; None if those are missing."""
        own = list(CLASSES).index(self.options.level)
        levels = list(CLASSES)[own:]
        files = {(level, split): self.folder / _list(level, split) for level in levels for split in PUBLISHED}
        if len(levels) == 1 or not all(file.is_file() for file in files.values()):
            return None
        of_image = [
            {image: name for split in PUBLISHED for image, name in pairs_of(files[level, split]).items()}
            for level in levels
        ]
        found = {name: [groups[image] for groups in of_image[1:]] for image, name in of_image[0].items()}
        return Taxonomy.of_columns(levels, found)

    def listing(self, split: str) -> Listing:
        """Read a split with torchvision."""
        from torchvision.datasets import FGVCAircraft

        listed = FGVCAircraft(self.folder.parent, split, annotation_level=self.options.level)
        return Listing(listed.classes, [self.relative(path) for path in listed._image_files], listed._labels)
