"""CUB-200-2011: 200 species of North American birds (Wah et al. 2011, Caltech technical report CNS-TR-2011-001)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from fgvc_cli.contracts import DatasetRequest, Download, Provision
from fgvc_datasets.visipedia import VisipediaDataset, told_apart


class Cub200Dataset(VisipediaDataset):
    """11,788 photographs, of which the published list gives 5,994 to training and 5,794 to the test.

    Class names are the published ones without their number and with blanks ("001.Black_footed_Albatross" becomes
    "Black footed Albatross"); their order is that of the numbers. Whole photographs are used, as the field does; the
    published bounding boxes are not. Nor are the published points of parts: nobody says which part decides a class.
    """

    title = "cub200"
    below = "CUB_200_2011"
    published = MappingProxyType({"train": 5994, "test": 5794})

    @classmethod
    def provision(cls, request: DatasetRequest, options: Any) -> Provision:  # noqa: ARG003
        """Return what is needed and the official archive that has it."""
        archive = Download(
            url="https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
            file="CUB_200_2011.tgz",
            checksum="md5:97eceeb196236b17998738112f37df78",
            size=1_150_585_339,
            unpack="",
            gives=cls.needed(),
        )
        folder = request.root / cls.title
        return Provision(
            folder=folder,
            needed=cls.needed(),
            downloads=(archive,),
            by_hand=f"Unpack CUB_200_2011.tgz in {folder}, or link a folder CUB_200_2011 that you have into it.",
            homepage="https://www.vision.caltech.edu/datasets/cub_200_2011/",
            license="photographs from Flickr, which belong to their photographers; see the homepage",
        )

    def readable_names(self, published: Mapping[str, str]) -> dict[str, str]:
        """Return the names without number and underscores."""
        return told_apart({number: _readable(name) for number, name in published.items()})


def _readable(name: str) -> str:
    number, dot, rest = name.partition(".")
    return (rest if dot and number.isdecimal() and rest else name).replace("_", " ")
