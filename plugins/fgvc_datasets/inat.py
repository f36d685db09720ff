"""iNaturalist: plants, animals and fungi as people photograph them (Van Horn et al., CVPR 2018 and CVPR 2021)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fgvc_cli.contracts import DatasetRequest, Provision
from fgvc_datasets.inat_files import VERSIONS
from fgvc_datasets.inat_taxonomy import RANKS, distinct_names, lineage
from fgvc_datasets.torchvision_set import Listing, TorchvisionDataset

Sample = tuple[str, int]
"""An image, relative to the dataset's folder, and the index of its category."""


class InatDataset(TorchvisionDataset):
    """The competition data of a year, at the rank that `level` names.

    The labels of the official test images are not public, so the literature reports the accuracy on the official
    validation split; that is our "test", and there is no "val". Class names of 2018 and 2019, which the competitions
    hid, are those that were published after them.
    """

    title = "inat"

    @classmethod
    def provision(cls, request: DatasetRequest, options: Any) -> Provision:
        """Return the folders of images of the version and, before 2021, its lists, and the archives of them."""
        version = VERSIONS[options.version]
        as_by_torchvision = (request.root / version.images).is_dir()
        return Provision(
            folder=request.root if as_by_torchvision else request.root / cls.title,
            needed=version.needed,
            downloads=version.downloads,
            by_hand=(
                "An archive may also be unpacked by hand: its one folder becomes one of the archive's name. "
                f"Folders of images that torchvision's INaturalist made in {request.root} are used where they are."
            ),
            homepage=f"https://github.com/visipedia/inat_comp/tree/master/{options.version[:4]}",
            license="non-commercial research and education; the photographs may not be passed on",
        )

    def published_images(self) -> Mapping[str, int]:
        """Return how many images the official splits of the version have."""
        return VERSIONS[self.options.version].published

    def official_splits(self) -> Mapping[str, str]:
        """Return each split's official one."""
        return {"train": "train", "test": "validation"}

    def origin(self, name: str, official: str) -> str:
        """Return what the test split is."""
        if name == official:
            return super().origin(name, official)
        return "the official validation split, as the literature reports it: the official test labels are not public"

    def lists(self, split: str) -> tuple[str, ...]:
        """Return the folder of a split of 2021, and the lists of one before."""
        if self._is_2021:
            return (VERSIONS[self.options.version].needed[0 if split == "train" else 1],)
        folder = f"lists/{self.options.version}"
        own = f"{folder}/{'train' if split == 'train' else 'val'}{self.options.version}.json"
        return (own,) if self.options.version == "2017" else (own, f"{folder}/categories.json")

    def listing(self, split: str) -> Listing:
        """Read a split: of 2021 through torchvision, which goes by folders; of the years before, by the lists."""
        categories, samples = self._by_folders(split) if self._is_2021 else self._by_lists(split)
        taxa = [lineage(category, self.options.level) for category in categories]
        classes = list(dict.fromkeys(taxa))
        index = {taxon: label for label, taxon in enumerate(classes)}
        labels = [index[taxon] for taxon in taxa]
        return Listing(distinct_names(classes), [name for name, _ in samples], [labels[c] for _, c in samples])

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
        found = sorted(listed.index)  # as the file system lists them is no order
        return categories, [(f"{folder}/{listed.all_categories[c]}/{file}", c) for c, file in found]

    def _by_lists(self, split: str) -> tuple[list[dict[str, str]], list[Sample]]:
        """Read lists in the form of COCO's."""
        published, *names = (json.loads((self.folder / name).read_text("utf-8")) for name in self.lists(split))
        categories = sorted(names[0] if names else published["categories"], key=lambda category: category["id"])
        position = {category["id"]: i for i, category in enumerate(categories)}
        category_of = {a["image_id"]: position[a["category_id"]] for a in published["annotations"]}
        return categories, [
            (f"{self.options.version}/{_below(image['file_name'])}", category_of[image["id"]])
            for image in published["images"]
        ]


def _below(file_name: str) -> str:
    """Leave off the archive's own folder, in place of which torchvision has the version's."""
    _, slash, rest = file_name.partition("/")
    if not slash:
        raise ValueError(f"{file_name!r} is no path of an image")
    return rest
