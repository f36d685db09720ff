"""The dataset that is a folder: class folders, optionally in folders for train, val and test."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fgvc_cli.contracts import Dataset, DatasetRequest, Split, Taxonomy
from fgvc_cli.contracts.dataset import names_digest
from fgvc_cli.errors import UsageError
from fgvc_datasets.folder_layout import find_layout
from fgvc_datasets.folder_names import similar_names
from fgvc_datasets.options import FolderOptions


class FolderDataset(Dataset):
    """Images in class folders. The class names are the names of these folders in all splits, sorted.

    Folders inside a class folder belong to the class. Keys are paths relative to the split's folder, because a file
    name may occur in several classes.

    Raises:
        UsageError: no folder is given.
        FgvcError: see `find_layout`.
    """

    def __init__(self, request: DatasetRequest, options: FolderOptions) -> None:
        if request.folder is None:
            raise UsageError("the dataset 'folder' needs a folder: give it as `data`")
        self.folder = request.folder.absolute()
        self.name = self.folder.name
        self._layout = find_layout(self.folder, options)
        self._levels = options.level_names
        self._images = self._layout.splits
        self.class_names = tuple(
            sorted({label for classes in self._images.values() for label, images in classes.items() if images})
        )
        similar = similar_names(self.class_names)
        for note in [*self._layout.notes, *([f"{self.folder}: {similar}"] if similar else [])]:
            request.note(note)

    def splits(self) -> tuple[str, ...]:
        """Return the names of the splits; a folder without split folders is all "train"."""
        return tuple(self._images)

    def split(self, name: str) -> Split:
        """Return the images of one split, by class and then by name."""
        base, classes = self._layout.bases[name], self._images[name]
        images: list[Path] = []
        labels: list[int] = []
        for label, class_name in enumerate(self.class_names):
            found = classes.get(class_name, [])
            images += found
            labels += [label] * len(found)
        keys = [image.relative_to(base).as_posix() for image in images]
        origin = "" if self._layout.has_splits else f"all of {self.folder}, which has no split folders"
        return Split(name, images, labels, keys, origin=origin)

    def taxonomy(self) -> Taxonomy | None:
        """Return the folders that the class folders are in, if the innermost folders are the classes."""
        found = {name: self._layout.groups.get(name, ()) for name in self.class_names}
        return Taxonomy.of_paths(found, self._levels)

    def identity(self) -> dict[str, Any]:
        """Return the folder, the number of images per split, and a digest of the file names."""
        splits = [self.split(name) for name in self.splits()]
        return {
            "name": "folder",
            "folder": str(self.folder),
            "images": {split.name: len(split) for split in splits},
            "names_sha256": names_digest(splits),
        }

    def ignored_files(self) -> Mapping[str, int]:
        """Return the number of files in the folder that are no images, by suffix."""
        return dict(self._layout.ignored)
