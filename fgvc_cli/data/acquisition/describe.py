"""Describe datasets, downloaded or not: their status, files, splits and classes."""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fgvc_cli.contracts import Dataset, Provision, Split
from fgvc_cli.data.acquisition.plan import host_of, pending_downloads
from fgvc_cli.data.acquisition.select import ChosenDataset
from fgvc_cli.errors import FgvcError
from fgvc_cli.registry import Component, Registry


@dataclass(frozen=True)
class SplitCounts:
    """The name and origin of a split, and its images per class, in the order of the dataset's class names."""

    name: str
    origin: str
    images: tuple[int, ...]

    @property
    def total(self) -> int:
        """Number of images."""
        return sum(self.images)

    @property
    def present(self) -> list[int]:
        """Number of images of each class that has any."""
        return [count for count in self.images if count]

    @property
    def per_class(self) -> dict[str, float]:
        """Minimum ("least"), median and maximum ("most") of the images per class, over classes that have any."""
        counts = self.present or [0]
        return {"least": min(counts), "median": float(statistics.median(counts)), "most": max(counts)}

    @property
    def spread(self) -> str:
        """Images per class as text: "64 each", or "41 to 60, median 60"."""
        least, median, most = self.per_class.values()
        return f"{most} each" if least == most else f"{least} to {most}, median {median:g}"

    def as_json(self) -> dict[str, object]:
        """Return the JSON form."""
        return {
            "images": self.total,
            "classes": len(self.present),
            "images_per_class": self.per_class,
            "origin": self.origin,
        }


def count_split(split: Split, classes: Sequence[str]) -> SplitCounts:
    """Count the images of each class in a split."""
    counts = np.bincount(np.asarray(split.labels, dtype=np.int64), minlength=len(classes))
    return SplitCounts(split.name, split.origin, tuple(counts.tolist()))


State = Literal["here", "missing", "generated", "own", "broken"]
"""All files exist, some are missing, none are needed, the user names them, or the plugin is broken."""


@dataclass(frozen=True)
class DatasetStatus:
    """A registered dataset, its `State`, its files and download links if it has any, and why it is broken."""

    component: Component
    state: State
    provision: Provision | None = None
    fault: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form."""
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
    """A dataset in detail.

    Attributes:
        chosen: the dataset.
        provision: its files and download links, if it has any.
        dataset: the opened dataset; None if files are missing.
        splits: of the opened dataset.
    """

    chosen: ChosenDataset
    provision: Provision | None
    dataset: Dataset | None
    splits: tuple[SplitCounts, ...]

    @property
    def folder(self) -> str:
        """The folder of its files, existing or not; empty if unknown."""
        if self.provision is not None:
            return str(self.provision.folder)
        if self.chosen.path is not None:
            return str(self.chosen.path)
        return "" if self.dataset is None else folder_of(self.dataset)

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        spec = self.chosen.component.spec
        return {
            "name": self.chosen.component.name,
            "reference": self.chosen.component.reference,
            "summary": spec.summary,
            "paper": spec.source,
            "here": self.dataset is not None,
            **_provision_json(self.provision),
            "folder": self.folder or None,
            "classes": None if self.dataset is None else list(self.dataset.class_names),
            "splits": {counts.name: counts.as_json() for counts in self.splits},
        }


def dataset_statuses(registry: Registry) -> list[DatasetStatus]:
    """Return the status of every registered dataset with default options, without opening it."""
    return [_status(component) for component in registry.components("dataset")]


def describe(chosen: ChosenDataset) -> Description:
    """Describe a dataset; it is opened unless files are missing.

    Raises:
        FgvcError: its files exist, but it cannot be opened.
    """
    provision = chosen.provision()
    if provision is not None and provision.missing():
        return Description(chosen, provision, None, ())
    dataset = chosen.open()
    splits = tuple(count_split(dataset.split(name), dataset.class_names) for name in dataset.splits())
    return Description(chosen, provision, dataset, splits)


def folder_of(dataset: Dataset) -> str:
    """Return the recorded folder of a dataset, or the common folder of its images; empty if unknown."""
    recorded = dataset.identity().get("folder")
    if recorded:
        return str(recorded)
    splits = [dataset.split(name) for name in dataset.splits()]
    images = [image for split in splits if len(split) for image in (split.images[0], split.images[-1])]
    folders = [str(image.parent) for image in images if isinstance(image, Path)]
    return os.path.commonpath(folders) if folders else ""


def _status(component: Component) -> DatasetStatus:
    try:
        chosen = ChosenDataset(component, component.options_type()())
        provision = chosen.provision()
    except FgvcError as error:
        return DatasetStatus(component, "broken", fault=str(error))
    if chosen.is_own:
        return DatasetStatus(component, "own", provision)
    if provision is None:
        return DatasetStatus(component, "generated")
    return DatasetStatus(component, "missing" if provision.missing() else "here", provision)


def _provision_json(provision: Provision | None) -> dict[str, Any]:
    if provision is None:
        return {"folder": None, "missing": [], "downloads": [], "by_hand": "", "homepage": "", "license": ""}
    downloads = [
        {
            "file": download.file,
            "url": download.url,
            "host": host_of(download),
            "size": download.size or None,
            "size_about": download.about or None,
            "checksum": download.checksum or None,
        }
        for download in pending_downloads(provision)
    ]
    return {
        "folder": provision.folder,
        "missing": provision.missing(),
        "downloads": downloads,
        "by_hand": provision.by_hand,
        "homepage": provision.homepage,
        "license": provision.license,
    }
