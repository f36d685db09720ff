"""FGVC-Aircraft: aircraft by variant, family or manufacturer (Maji et al. 2013, arXiv 1306.5151)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from fgvc_cli.contracts import DatasetRequest, Download, Provision
from fgvc_datasets.torchvision_dataset import Listing, TorchvisionDataset

SITE = "https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/"
CLASSES = {"variant": "variants.txt", "family": "families.txt", "manufacturer": "manufacturers.txt"}
"""The list of classes of each level."""


class FgvcAircraftDataset(TorchvisionDataset):
    """10,000 photographs, about 100 of each variant, in three official splits that are the same at every level.

    Whole photographs are used, with the line of text at their foot that names the photographer, as they are published.
    """

    title = "fgvc_aircraft"
    published: ClassVar[Mapping[str, int]] = {"train": 3334, "val": 3333, "test": 3333}

    @classmethod
    def provision(cls, request: DatasetRequest, options: Any) -> Provision:
        """Return the images' folder and the lists of the level, and the archive that has those of all levels."""
        archive = Download(
            url=f"{SITE}archives/fgvc-aircraft-2013b.tar.gz",
            file="fgvc-aircraft-2013b.tar.gz",
            checksum="md5:d4acdd33327262359767eeaa97a4f732",
            size=2_753_340_328,
            unpack="",
            strip=1,
            gives=("data/images", *(name for level in CLASSES for name in _all_lists(level))),
        )
        return Provision(
            folder=request.root / "fgvc-aircraft-2013b",
            needed=("data/images", *_all_lists(options.level)),
            downloads=(archive,),
            homepage=SITE,
            license="non-commercial research only; the photographs belong to their photographers",
        )

    def lists(self, split: str) -> tuple[str, ...]:
        """Return the split's list and that of the classes."""
        return _list(self.options.level, split), f"data/{CLASSES[self.options.level]}"

    def listing(self, split: str) -> Listing:
        """Read a split through torchvision."""
        from torchvision.datasets import FGVCAircraft

        listed = FGVCAircraft(self.folder.parent, split, annotation_level=self.options.level)
        return Listing(listed.classes, [self.relative(path) for path in listed._image_files], listed._labels)


def _list(level: str, split: str) -> str:
    return f"data/images_{level}_{split}.txt"


def _all_lists(level: str) -> tuple[str, ...]:
    return f"data/{CLASSES[level]}", *(_list(level, split) for split in FgvcAircraftDataset.published)
