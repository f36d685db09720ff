"""NABirds: birds of North America, with sexes and ages apart (Van Horn et al., CVPR 2015)."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from fgvc_cli.contracts import DatasetRequest, Provision
from fgvc_datasets.visipedia import VisipediaDataset, told_apart


class NabirdsDataset(VisipediaDataset):
    """48,562 photographs of 555 classes, of which the published list gives 23,929 to training and 24,633 to the test.

    The published numbers of the classes run to 1,010, because they also count groups of birds that have no images of
    their own; only the 555 with images are classes here. Where classes should share a name, their number follows it.
    """

    title = "nabirds"
    below = ""
    published = MappingProxyType({"train": 23929, "test": 24633})

    @classmethod
    def provision(cls, request: DatasetRequest, options: Any) -> Provision:  # noqa: ARG003
        """Return what is needed; the archive is given out by a form only."""
        return Provision(
            folder=request.root / cls.title,
            needed=cls.needed(),
            by_hand=(
                "The archive has no public link. Fill in the form on https://dl.allaboutbirds.org/nabirds, accept the "
                "terms, download nabirds.tar.gz (md5 df21a9e4db349a14e2b08adfd45873bd), and unpack it: "
                f"tar xzf nabirds.tar.gz -C {shlex.quote(str(request.root))}"
            ),
            homepage="https://dl.allaboutbirds.org/nabirds",
            license="the terms that the form asks you to accept",
        )

    def readable_names(self, published: Mapping[str, str]) -> dict[str, str]:
        """Return the published names."""
        return told_apart(published)
