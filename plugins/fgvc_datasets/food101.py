"""Food-101: dishes (Bossard et al., ECCV 2014)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from fgvc_cli.contracts import DatasetRequest, Download, Provision
from fgvc_datasets.torchvision_dataset import Listing, TorchvisionDataset


class Food101Dataset(TorchvisionDataset):
    """101,000 photographs of 101 dishes: of each 750 for training, not cleaned on purpose, and 250 for the test."""

    title = "food101"
    published: ClassVar[Mapping[str, int]] = {"train": 75750, "test": 25250}

    @classmethod
    def provision(cls, request: DatasetRequest, options: Any) -> Provision:  # noqa: ARG003
        """Return the images' folder and the lists, and the archive that has them."""
        needed = ("images", "meta/train.json", "meta/test.json")
        archive = Download(
            url="http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz",
            file="food-101.tar.gz",
            checksum="md5:85eeb15f3717b99a5da872d97d918f87",
            size=4_996_278_331,
            unpack="",
            strip=1,
            gives=needed,
        )
        return Provision(
            folder=request.root / "food-101",
            needed=needed,
            downloads=(archive,),
            homepage="https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/",
            license="scientific fair use; the photographs belong to their owners",
        )

    def lists(self, split: str) -> tuple[str, ...]:
        """Return the split's list."""
        return (f"meta/{split}.json",)

    def listing(self, split: str) -> Listing:
        """Read a split through torchvision."""
        from torchvision.datasets import Food101

        listed = Food101(self.folder.parent, split)
        return Listing(listed.classes, [self.relative(path) for path in listed._image_files], listed._labels)
