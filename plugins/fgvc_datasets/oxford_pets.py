"""Oxford-IIIT Pet: breeds of cats and dogs (Parkhi et al., CVPR 2012)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from fgvc_cli.contracts import DatasetRequest, Download, Provision
from fgvc_datasets.torchvision_dataset import Listing, TorchvisionDataset

SITE = "https://www.robots.ox.ac.uk/~vgg/data/pets/"


class OxfordPetsDataset(TorchvisionDataset):
    """7,349 photographs of 12 breeds of cats and 25 of dogs. The official "trainval" is our "train"."""

    title = "oxford_pets"
    published: ClassVar[Mapping[str, int]] = {"trainval": 3680, "test": 3669}

    @classmethod
    def provision(cls, request: DatasetRequest, options: Any) -> Provision:  # noqa: ARG003
        """Return the images' folder and the lists, and the two archives that have them."""
        images = Download(
            url=f"{SITE}data/images.tar.gz",
            file="images.tar.gz",
            checksum="md5:5c4f3ee8e5d25df40f4fd59a7f44e54c",
            size=791_918_971,
            unpack="",
            gives=("images",),
        )
        lists = Download(
            url=f"{SITE}data/annotations.tar.gz",
            file="annotations.tar.gz",
            checksum="md5:95a8c909bbe2e81eed6a22bccdf3f68f",
            size=19_173_078,
            unpack="",
            gives=("annotations/trainval.txt", "annotations/test.txt"),
        )
        return Provision(
            folder=request.root / "oxford-iiit-pet",
            needed=(*images.gives, *lists.gives),
            downloads=(images, lists),
            by_hand=(
                "Where www.robots.ox.ac.uk does not answer, images.tar.gz and annotations.tar.gz are also at "
                "https://thor.robots.ox.ac.uk/~vgg/data/pets/; unpack both here."
            ),
            homepage=SITE,
            license="CC BY-SA 4.0; the photographs belong to their owners",
        )

    def official_splits(self) -> Mapping[str, str]:
        """Return each split's official one."""
        return {"train": "trainval", "test": "test"}

    def lists(self, split: str) -> tuple[str, ...]:
        """Return the split's list."""
        return (f"annotations/{split}.txt",)

    def listing(self, split: str) -> Listing:
        """Read a split through torchvision.

        Its class names are those that the list names, in the order of their labels: the labels must leave no gap.
        """
        from torchvision.datasets import OxfordIIITPet

        listed = OxfordIIITPet(self.folder.parent, split)
        if sorted(set(listed._labels)) != list(range(len(listed.classes))):
            raise ValueError("the names of its images and the labels do not go together")
        return Listing(listed.classes, [self.relative(path) for path in listed._images], listed._labels)
