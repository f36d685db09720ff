"""A dataset that changes another one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fgvc_cli.contracts import Dataset, Split, Taxonomy


class WrappedDataset(Dataset):
    """A dataset with everything of another one; subclasses override what they change."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.name, self.class_names = dataset.name, dataset.class_names

    def splits(self) -> tuple[str, ...]:
        """Return the names of the splits."""
        return self.dataset.splits()

    def split(self, name: str) -> Split:
        """Return one split."""
        return self.dataset.split(name)

    def attributes(self) -> tuple[str, ...]:
        """Return the names of the attributes of images."""
        return self.dataset.attributes()

    def attribute(self, name: str, split: str) -> Sequence[str]:
        """Return the value of an attribute for each image of a split."""
        return self.dataset.attribute(name, split)

    def ignored_files(self) -> Mapping[str, int]:
        """Return the number of files in the dataset's folder that are no images."""
        return self.dataset.ignored_files()

    def taxonomy(self) -> Taxonomy | None:
        """Return the dataset's taxonomy."""
        return self.dataset.taxonomy()

    def deciding_parts(self) -> dict[str, tuple[str, ...]] | None:
        """Return the discriminative parts of each class, if known."""
        return self.dataset.deciding_parts()

    def identity(self) -> dict[str, Any]:
        """Return what the dataset records."""
        return self.dataset.identity()
