"""Oxford Flowers-102: flowers of 102 kinds that are common in Britain (Nilsback and Zisserman, ICVGIP 2008)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from fgvc_cli.contracts import DatasetRequest, Download, Provision
from fgvc_datasets.torchvision_dataset import Listing, TorchvisionDataset

SITE = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/"

DOWNLOADS = (
    Download(
        url=f"{SITE}102flowers.tgz",
        file="102flowers.tgz",
        checksum="md5:52808999861908f626f3c1f4e79d11fa",
        size=344_862_509,
        unpack="",
        gives=("jpg",),
    ),
    Download(
        url=f"{SITE}imagelabels.mat",
        file="imagelabels.mat",
        checksum="md5:e0620be6f572b9609742df49c70aed4d",
        size=502,
    ),
    Download(url=f"{SITE}setid.mat", file="setid.mat", checksum="md5:a5357ecc9cb78c4bef273ce3793fc85c", size=14_989),
)


class Flowers102Dataset(TorchvisionDataset):
    """8,189 photographs. Officially 10 a class are for training, 10 for validation, and the rest for the test.

    The June 2024 report trained on the official test split and tested on the official training split; that is had with
    `splits=report`, and its figures are not comparable with the literature's.
    """

    title = "flowers102"
    published: ClassVar[Mapping[str, int]] = {"train": 1020, "val": 1020, "test": 6149}

    @classmethod
    def provision(cls, request: DatasetRequest, options: Any) -> Provision:  # noqa: ARG003
        """Return the images' folder and the two lists, and their links."""
        return Provision(
            folder=request.root / "flowers-102",
            needed=("jpg", "imagelabels.mat", "setid.mat"),
            downloads=DOWNLOADS,
            homepage=SITE,
            license="none is stated; the photographs belong to their owners",
        )

    def official_splits(self) -> Mapping[str, str]:
        """Return each split's official one: its own, or the one that the report took."""
        if self.options.splits == "report":
            return {"train": "test", "val": "val", "test": "train"}
        return super().official_splits()

    def origin(self, name: str, official: str) -> str:
        """Return "official", or in words that the splits were exchanged."""
        if name == official:
            return super().origin(name, official)
        return f"the official {official} split, as in the June 2024 report: not comparable with the literature"

    def lists(self, split: str) -> tuple[str, ...]:  # noqa: ARG002
        """Return the two lists; both hold all splits."""
        return "imagelabels.mat", "setid.mat"

    def listing(self, split: str) -> Listing:
        """Read a split through torchvision, which verifies the lists' checksums."""
        from torchvision.datasets import Flowers102
        from torchvision.datasets.utils import check_integrity

        for file, md5 in (Flowers102._file_dict["label"], Flowers102._file_dict["setid"]):
            if not check_integrity(self.folder / file, md5):
                raise self.damaged(self.folder / file, "is not the published file: its md5 is another")
        listed = Flowers102(self.folder.parent, split)
        return Listing(Flowers102.classes, [self.relative(path) for path in listed._image_files], listed._labels)
