"""Oxford Flowers-102: 102 flowers that are common in Britain (Nilsback and Zisserman, ICVGIP 2008)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from fgvc_cli.contracts import Download
from fgvc_datasets.torchvision_dataset import Listing, TorchvisionDataset

SITE = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/"


class Flowers102Dataset(TorchvisionDataset):
    """8,189 photographs. Officially 10 per class are for training, 10 for validation, and the rest for the test.

    The June 2024 report trained on the official test split and tested on the official training split; `splits=report`
    reproduces that, and its results are not comparable with the literature.
    """

    title = "flowers102"
    folder_name = "flowers-102"
    published: ClassVar[Mapping[str, int]] = {"train": 1020, "val": 1020, "test": 6149}
    needed = ("jpg", "imagelabels.mat", "setid.mat")
    downloads = (
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
        Download(
            url=f"{SITE}setid.mat", file="setid.mat", checksum="md5:a5357ecc9cb78c4bef273ce3793fc85c", size=14_989
        ),
    )
    homepage = SITE
    license = "not stated; the photographs belong to their owners"

    def official_splits(self) -> Mapping[str, str]:
        """Return the official split of each split, with train and test swapped for `splits=report`."""
        if self.options.splits == "report":
            return {"train": "test", "val": "val", "test": "train"}
        return super().official_splits()

    def origin(self, name: str, official: str) -> str:
        """Return "official", or a description of the swapped split."""
        if name == official:
            return super().origin(name, official)
        return f"the official {official} split, as in the June 2024 report: not comparable with the literature"

    def lists(self, split: str) -> tuple[str, ...]:  # noqa: ARG002
        """Return the two lists; both contain all splits."""
        return "imagelabels.mat", "setid.mat"

    def listing(self, split: str) -> Listing:
        """Verify the checksums of the lists, and read a split with torchvision."""
        from torchvision.datasets import Flowers102
        from torchvision.datasets.utils import check_integrity

        for file, md5 in (Flowers102._file_dict["label"], Flowers102._file_dict["setid"]):
            if not check_integrity(self.folder / file, md5):
                raise self.damaged(self.folder / file, "not the published file: its md5 differs")
        listed = Flowers102(self.folder.parent, split)
        return Listing(Flowers102.classes, [self.relative(path) for path in listed._image_files], listed._labels)
