"""Food-101: dishes (Bossard et al., ECCV 2014)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from fgvc_cli.contracts import Download
from fgvc_datasets.torchvision_dataset import Listing, TorchvisionDataset


class Food101Dataset(TorchvisionDataset):
    """101,000 photographs of 101 dishes: 750 per dish for training, deliberately not cleaned, and 250 for the test."""

    title = "food101"
    folder_name = "food-101"
    published: ClassVar[Mapping[str, int]] = {"train": 75750, "test": 25250}
    needed = ("images", "meta/train.json", "meta/test.json")
    downloads = (
        Download(
            url="http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz",
            file="food-101.tar.gz",
            checksum="md5:85eeb15f3717b99a5da872d97d918f87",
            size=4_996_278_331,
            unpack="",
            strip=1,
            gives=needed,
        ),
    )
    homepage = "https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/"
    license = "scientific fair use; the photographs belong to their owners"

    def lists(self, split: str) -> tuple[str, ...]:
        """Return the split's list."""
        return (f"meta/{split}.json",)

    def listing(self, split: str) -> Listing:
        """Read a split with torchvision."""
        from torchvision.datasets import Food101

        listed = Food101(self.folder.parent, split)
        return Listing(listed.classes, [self.relative(path) for path in listed._image_files], listed._labels)
