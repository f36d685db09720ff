"""The dataset that is a folder: class folders, with or without folders for train, val and test above them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fgvc_cli.contracts import Dataset, DatasetRequest, Split
from fgvc_cli.contracts.image_files import find_images, visible_folders
from fgvc_cli.errors import UsageError
from fgvc_datasets.folder_options import FolderOptions
from fgvc_datasets.layout import find_splits, loose_images
from fgvc_datasets.named import names_digest


class FolderDataset(Dataset):
    """Images in class folders. The names of the folders, of all splits together, are the class names, sorted.

    Folders below a class folder belong to the class. Keys are paths relative to the split's folder, because the same
    file name may occur in several classes.

    Raises:
        UsageError: no folder is given.
        FgvcError: see `fgvc_datasets.layout.find_splits`.
    """

    def __init__(self, request: DatasetRequest, options: FolderOptions) -> None:
        if request.folder is None:
            raise UsageError("The dataset 'folder' is made from a folder: name it with --data FOLDER.")
        self.folder = request.folder.absolute()
        self.name = self.folder.name
        self._split_folders = find_splits(self.folder, options)
        self._images = {name: _images_by_class(path) for name, path in self._split_folders.items()}
        self.class_names = tuple(
            sorted({label for classes in self._images.values() for label, images in classes.items() if images})
        )
        self._note_what_is_ignored(request)

    def splits(self) -> tuple[str, ...]:
        """Return the splits there are; a folder without split folders is all "train"."""
        return tuple(self._images)

    def split(self, name: str) -> Split:
        """Return the images of one split, by class and then by name."""
        base, classes = self._split_folders[name], self._images[name]
        images: list[Path] = []
        labels: list[int] = []
        for label, class_name in enumerate(self.class_names):
            found = classes.get(class_name, [])
            images += found
            labels += [label] * len(found)
        keys = [image.relative_to(base).as_posix() for image in images]
        origin = f"all of {self.folder}, which has no split folders" if base == self.folder else ""
        return Split(name, images, labels, keys, origin=origin)

    def identity(self) -> dict[str, Any]:
        """Return the folder, how many images each split has, and a digest of the files' names."""
        splits = [self.split(name) for name in self.splits()]
        counts = {split.name: len(split) for split in splits}
        return {
            "name": "folder",
            "folder": str(self.folder),
            "images": counts,
            "names_sha256": names_digest(splits),
        }

    def _note_what_is_ignored(self, request: DatasetRequest) -> None:
        for name, path in self._split_folders.items():
            empty = [label for label, images in self._images[name].items() if not images]
            if empty:
                shown = ", ".join(empty[:8]) + (f" and {len(empty) - 8} more" if len(empty) > 8 else "")
                request.note(f"{path}: ignored, because no image is in it: {shown}.")
            loose = loose_images(path)
            if loose:
                request.note(f"{path}: {loose} image{'' if loose == 1 else 's'} ignored, in no class folder.")


def _images_by_class(split_folder: Path) -> dict[str, list[Path]]:
    return {path.name: find_images(path) for path in visible_folders(split_folder)}
