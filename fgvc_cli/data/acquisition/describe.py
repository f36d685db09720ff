"""What is known of a dataset, downloaded or not."""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fgvc_cli.contracts import Dataset, Download, Provision, Split
from fgvc_cli.data.acquisition.plan import host_of, wanted
from fgvc_cli.data.acquisition.select import ChosenDataset
from fgvc_cli.errors import FgvcError
from fgvc_cli.registry import Component, Registry


@dataclass(frozen=True)
class SplitCounts:
    """How many images a split has.

    Attributes:
        name: of the split.
        origin: how it came about; empty if it is a person's own.
        images: of each class, in the order of the dataset's class names.
    """

    name: str
    origin: str
    images: tuple[int, ...]

    @property
    def total(self) -> int:
        """Images in all."""
        return sum(self.images)

    @property
    def classes(self) -> int:
        """Classes that have an image."""
        return sum(1 for count in self.images if count)

    @property
    def least(self) -> int:
        """Images of the class that has fewest, of those that have any."""
        return min((count for count in self.images if count), default=0)

    @property
    def median(self) -> float:
        """Median of the images of a class, over those that have any."""
        return float(statistics.median([count for count in self.images if count] or [0]))

    @property
    def most(self) -> int:
        """Images of the class that has most."""
        return max(self.images, default=0)

    @property
    def spread(self) -> str:
        """Say how many images a class has: "64 each", or "41 to 60, median 60"."""
        if self.least == self.most:
            return f"{self.most} each"
        return f"{self.least} to {self.most}, median {self.median:g}"

    def as_json(self) -> dict[str, object]:
        """Return what JSON says of it."""
        per_class = {"least": self.least, "median": self.median, "most": self.most}
        return {"images": self.total, "classes": self.classes, "images_per_class": per_class, "origin": self.origin}


def count_split(split: Split, classes: Sequence[str]) -> SplitCounts:
    """Count the images of each class in a split."""
    counts = np.bincount(np.asarray(split.labels, dtype=np.int64), minlength=len(classes))
    return SplitCounts(split.name, split.origin, tuple(counts.tolist()))


def count_splits(dataset: Dataset) -> list[SplitCounts]:
    """Count the images of each class in each split."""
    return [count_split(dataset.split(name), dataset.class_names) for name in dataset.splits()]


HERE, MISSING, MADE, OWN, BROKEN = "here", "missing", "made when opened", "with --data", "broken"
"""Where a dataset stands: all its files are here, some are not, it needs none, a person names them, or its plugin
fails."""


@dataclass(frozen=True)
class Standing:
    """One of all datasets, and where it stands.

    Attributes:
        component: as it is registered.
        state: `HERE`, `MISSING`, `MADE`, `OWN` or `BROKEN`.
        provision: what it needs, if it says.
        fault: why it is broken.
    """

    component: Component
    state: str
    provision: Provision | None = None
    fault: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return what JSON says of it."""
        return {
            "name": self.component.name,
            "reference": self.component.reference,
            "summary": self.component.spec.summary,
            "state": self.state,
            **_provision_json(self.provision),
            "fault": self.fault,
        }


@dataclass(frozen=True)
class Description:
    """One dataset in detail.

    Attributes:
        chosen: the dataset.
        provision: what it needs, if it says.
        dataset: the dataset itself, if it is here.
        splits: what it holds, if it is here.
    """

    chosen: ChosenDataset
    provision: Provision | None
    dataset: Dataset | None
    splits: tuple[SplitCounts, ...]

    @property
    def is_here(self) -> bool:
        """Whether all its files are here."""
        return self.dataset is not None

    @property
    def folder(self) -> str:
        """Where it lies, or would lie; empty if it does not say."""
        if self.provision is not None:
            return str(self.provision.folder)
        if self.chosen.path is not None:
            return str(self.chosen.path)
        return "" if self.dataset is None else folder_of(self.dataset)

    def as_json(self) -> dict[str, Any]:
        """Return what JSON says of it."""
        spec = self.chosen.component.spec
        return {
            "name": self.chosen.component.name,
            "reference": self.chosen.component.reference,
            "summary": spec.summary,
            "paper": spec.source,
            "here": self.is_here,
            **_provision_json(self.provision),
            "folder": self.folder or None,
            "classes": None if self.dataset is None else list(self.dataset.class_names),
            "splits": {counts.name: counts.as_json() for counts in self.splits},
        }


def all_standings(registry: Registry) -> list[Standing]:
    """Say of each registered dataset, with its default options, where it stands; nothing is opened."""
    return [_standing(component) for component in registry.components("dataset")]


def describe(chosen: ChosenDataset) -> Description:
    """Describe one dataset; it is opened if it is here, and not if files that it needs are missing.

    Raises:
        FgvcError: it cannot be opened, though its files are here.
    """
    provision = chosen.provision()
    if provision is not None and provision.missing():
        return Description(chosen, provision, None, ())
    dataset = chosen.open()
    return Description(chosen, provision, dataset, tuple(count_splits(dataset)))


def folder_of(dataset: Dataset) -> str:
    """Return the folder that a dataset lies in, as it says itself or as its images have it; empty if in none."""
    said = dataset.identity().get("folder")
    if said:
        return str(said)
    splits = [dataset.split(name) for name in dataset.splits()]
    images = [image for split in splits if len(split) for image in (split.images[0], split.images[-1])]
    folders = [str(image.parent) for image in images if isinstance(image, Path)]
    return os.path.commonpath(folders) if folders else ""


def _standing(component: Component) -> Standing:
    try:
        chosen = ChosenDataset(component, component.options_type()())
        provision = chosen.provision()
    except FgvcError as error:
        return Standing(component, BROKEN, fault=str(error))
    if chosen.is_own:
        return Standing(component, OWN, provision)
    if provision is None:
        return Standing(component, MADE)
    return Standing(component, MISSING if provision.missing() else HERE, provision)


def _provision_json(provision: Provision | None) -> dict[str, Any]:
    if provision is None:
        return {"folder": None, "missing": [], "downloads": [], "by_hand": "", "homepage": "", "license": ""}
    return {
        "folder": provision.folder,
        "missing": provision.missing(),
        "downloads": [_download_json(download) for download in wanted(provision)],
        "by_hand": provision.by_hand,
        "homepage": provision.homepage,
        "license": provision.license,
    }


def _download_json(download: Download) -> dict[str, Any]:
    return {
        "file": download.file,
        "url": download.url,
        "host": host_of(download),
        "size": download.size or None,
        "size_about": download.about or None,
        "checksum": download.checksum or None,
    }
