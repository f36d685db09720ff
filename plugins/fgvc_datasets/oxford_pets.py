"""Oxford-IIIT Pet: breeds of cats and dogs (Parkhi et al., CVPR 2012)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from fgvc_cli.contracts import Download, Taxonomy
from fgvc_datasets.published import lines_of
from fgvc_datasets.torchvision_dataset import Listing, TorchvisionDataset

SPECIES = {"1": "cat", "2": "dog"}
SITE = "https://www.robots.ox.ac.uk/~vgg/data/pets/"


class OxfordPetsDataset(TorchvisionDataset):
    """7,349 photographs of 12 breeds of cats and 25 of dogs. The official "trainval" is used as "train"."""

    title = "oxford_pets"
    folder_name = "oxford-iiit-pet"
    published: ClassVar[Mapping[str, int]] = {"trainval": 3680, "test": 3669}
    needed = ("images", "annotations/trainval.txt", "annotations/test.txt")
    downloads = (
        Download(
            url=f"{SITE}data/images.tar.gz",
            file="images.tar.gz",
            checksum="md5:5c4f3ee8e5d25df40f4fd59a7f44e54c",
            size=791_918_971,
            unpack="",
            gives=needed[:1],
        ),
        Download(
            url=f"{SITE}data/annotations.tar.gz",
            file="annotations.tar.gz",
            checksum="md5:95a8c909bbe2e81eed6a22bccdf3f68f",
            size=19_173_078,
            unpack="",
            gives=needed[1:],
        ),
    )
    by_hand = (
        "If www.robots.ox.ac.uk does not respond, images.tar.gz and annotations.tar.gz are also at "
        "https://thor.robots.ox.ac.uk/~vgg/data/pets/; unpack both here."
    )
    homepage = SITE
    license = "CC BY-SA 4.0; the photographs belong to their owners"

    def official_splits(self) -> Mapping[str, str]:
        """Return the official split of each split."""
        return {"train": "trainval", "test": "test"}

    def lists(self, split: str) -> tuple[str, ...]:
        """Return the split's list."""
        return (f"annotations/{split}.txt",)

    def taxonomy(self) -> Taxonomy:
        """Return cat or dog for each breed, from the third column of the list."""
        path = self.folder / self.lists("trainval")[0]
        species = {int(label): SPECIES[kind] for _, line in lines_of(path) for _, label, kind, _ in [line.split()]}
        return Taxonomy(("breed", "species"), {name: (species[i],) for i, name in enumerate(self.class_names, 1)})

    def listing(self, split: str) -> Listing:
        """Read a split with torchvision.

        Class names come from the list, in the order of their labels, which must leave no gap.
        """
        from torchvision.datasets import OxfordIIITPet

        listed = OxfordIIITPet(self.folder.parent, split)
        if sorted(set(listed._labels)) != list(range(len(listed.classes))):
            raise ValueError("image names and labels do not match")
        return Listing(listed.classes, [self.relative(path) for path in listed._images], listed._labels)
