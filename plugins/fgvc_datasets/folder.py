"""The dataset that is a folder: class folders, optionally in folders for train, val and test."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fgvc_cli.contracts import Dataset, DatasetRequest, Split
from fgvc_cli.contracts.dataset import IMAGE_SUFFIXES, find_images, has_images, names_digest, visible_folders
from fgvc_cli.errors import FgvcError, UsageError, did_you_mean
from fgvc_datasets.options import FolderOptions

USUAL_NAMES: Mapping[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}


class FolderDataset(Dataset):
    """Images in class folders. The class names are the names of these folders in all splits, sorted.

    Folders inside a class folder belong to the class. Keys are paths relative to the split's folder, because a file
    name may occur in several classes.

    Raises:
        UsageError: no folder is given.
        FgvcError: see `find_splits`.
    """

    def __init__(self, request: DatasetRequest, options: FolderOptions) -> None:
        if request.folder is None:
            raise UsageError("the dataset 'folder' needs a folder: give it as `data`")
        self.folder = request.folder.absolute()
        self.name = self.folder.name
        self._split_folders = find_splits(self.folder, options)
        self._images = {name: images_by_class(path) for name, path in self._split_folders.items()}
        self.class_names = tuple(
            sorted({label for classes in self._images.values() for label, images in classes.items() if images})
        )
        self._note_ignored(request)

    def splits(self) -> tuple[str, ...]:
        """Return the names of the splits; a folder without split folders is all "train"."""
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
        """Return the folder, the number of images per split, and a digest of the file names."""
        splits = [self.split(name) for name in self.splits()]
        return {
            "name": "folder",
            "folder": str(self.folder),
            "images": {split.name: len(split) for split in splits},
            "names_sha256": names_digest(splits),
        }

    def _note_ignored(self, request: DatasetRequest) -> None:
        for name, path in self._split_folders.items():
            empty = [label for label, images in self._images[name].items() if not images]
            if empty:
                shown = ", ".join(empty[:8]) + (f" and {len(empty) - 8} more" if len(empty) > 8 else "")
                request.note(f"{path}: folders without images are ignored: {shown}")
            loose = loose_images(path)
            if loose:
                request.note(f"{path}: {loose} image{'' if loose == 1 else 's'} outside class folders ignored")


def find_splits(folder: Path, options: FolderOptions) -> dict[str, Path]:
    """Return the folder of each split, "train" first; the whole folder as "train" if it has no split folders.

    A folder with a usual name is a split if it contains folders with images: a class called "test" contains only
    images.

    Raises:
        FgvcError: the folder does not exist, is a file, is empty, has no class folders, or mixes the two layouts.
    """
    if not folder.exists():
        parent = folder.parent
        near = did_you_mean(folder.name, [path.name for path in visible_folders(parent)]) if parent.is_dir() else ""
        raise FgvcError(f"{folder}: no such folder.{near}" if near else f"{folder}: no such folder")
    if not folder.is_dir():
        raise FgvcError(f"{folder} is a file; `data` takes a folder with one folder of images per class")
    below = visible_folders(folder)
    splits = {name: found for name in USUAL_NAMES if (found := _split_folder(folder, below, name, options))}
    others = [path.name for path in below if path not in splits.values() and has_images(path)]
    if not splits:
        if not others:
            raise FgvcError(_no_classes(folder))
        return {"train": folder}
    if others:
        there = ", ".join(f"{path.name}/" for path in splits.values())
        raise FgvcError(
            f"{folder} mixes split folders ({there}) with other folders of images ({', '.join(others[:5])}"
            f"{', ...' if len(others) > 5 else ''}); move those away or into a split folder, or name the folder of a "
            "split with `dataset.train` (val, test)"
        )
    return splits


def images_by_class(split_folder: Path) -> dict[str, list[Path]]:
    """Return the images of each class folder."""
    return {path.name: find_images(path) for path in visible_folders(split_folder)}


def loose_images(folder: Path) -> int:
    """Count the images directly in a folder, outside class folders."""
    return sum(
        path.suffix.lower() in IMAGE_SUFFIXES and path.is_file() and not path.name.startswith(".")
        for path in folder.iterdir()
    )


def _split_folder(folder: Path, below: list[Path], split: str, options: FolderOptions) -> Path | None:
    named = getattr(options, split)
    if named is not None:
        if not (folder / named).is_dir():
            near = did_you_mean(named, [path.name for path in below])
            raise FgvcError(f"`dataset.{split}={named}`: {folder} has no such folder.{near}")
        return folder / str(named)
    taken = {folder / name for name in (options.train, options.val, options.test) if name is not None}
    usual = [path for path in below if path.name.lower() in USUAL_NAMES[split] and path not in taken]
    candidates = [path for path in usual if any(has_images(inner) for inner in visible_folders(path))]
    if len(candidates) > 1:
        names = " and ".join(path.name for path in candidates)
        raise FgvcError(f"{folder} has {names}; choose one with `dataset.{split}`")
    return candidates[0] if candidates else None


def _no_classes(folder: Path) -> str:
    """Describe a folder without class folders."""
    expected = "one folder of images per class is expected, directly in it or in train/, val/ and test/"
    images = loose_images(folder)
    if images:
        return f"{folder} has {images} image{'' if images == 1 else 's'} but no class folders; {expected}"
    is_empty = next(folder.iterdir(), None) is None
    return f"{folder} {'is empty' if is_empty else 'contains no images'}; {expected}"
