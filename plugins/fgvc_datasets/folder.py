"""X"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fgvc_cli.contracts import Dataset, DatasetRequest, Split
from fgvc_cli.contracts.image_files import IMAGE_SUFFIXES, find_images, has_images, visible_folders
from fgvc_cli.errors import FgvcError, UsageError, did_you_mean
from fgvc_datasets.options import FolderOptions
from fgvc_datasets.published import names_digest

USUAL_NAMES: Mapping[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}


def find_splits(folder: Path, options: FolderOptions) -> dict[str, Path]:
    """Return the folder of each split, "train" first; the whole folder as "train" if it has no split folders.

    A folder of a usual name is a split if it has folders with images in it: a class called "test" has images only.

    Raises:
        FgvcError: it is not there, not a folder, empty, without class folders, or a mixture of the two layouts.
    """
    if not folder.exists():
        raise FgvcError(f"{folder}: there is no such folder.{_near(folder)}")
    if not folder.is_dir():
        raise FgvcError(f"{folder} is a file; --data takes a folder with a folder of images for each class.")
    below = visible_folders(folder)
    splits = {name: found for name in USUAL_NAMES if (found := _split_folder(folder, below, name, options))}
    strangers = [path.name for path in below if path not in splits.values() and has_images(path)]
    if not splits:
        if not strangers:
            raise FgvcError(_no_classes(folder))
        return {"train": folder}
    if strangers:
        there = ", ".join(f"{path.name}/" for path in splits.values())
        raise FgvcError(
            f"{folder} mixes split folders ({there}) with other folders of images ({', '.join(strangers[:5])}"
            f"{', ...' if len(strangers) > 5 else ''}). Move those away or into a split folder; "
            "--set dataset.train=NAME (val, test) says which folder is which split."
        )
    return splits


def loose_images(folder: Path) -> int:
    """Count the images that lie directly in a folder, in no class folder."""
    return sum(
        1
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file() and not path.name.startswith(".")
    )


def _split_folder(folder: Path, below: list[Path], split: str, options: FolderOptions) -> Path | None:
    named = getattr(options, split)
    if named is not None:
        if not (folder / named).is_dir():
            near = did_you_mean(named, [path.name for path in below])
            raise FgvcError(f"{folder} has no folder '{named}', which dataset.{split} names.{near}")
        return folder / str(named)
    taken = {folder / name for name in (options.train, options.val, options.test) if name is not None}
    usual = [path for path in below if path.name.lower() in USUAL_NAMES[split] and path not in taken]
    candidates = [path for path in usual if _has_class_folders(path)]
    if len(candidates) > 1:
        names = " and ".join(path.name for path in candidates)
        raise FgvcError(f"{folder} has {names}: say which one is meant with --set dataset.{split}=NAME.")
    return candidates[0] if candidates else None


def _has_class_folders(folder: Path) -> bool:
    return any(has_images(path) for path in visible_folders(folder))


def _no_classes(folder: Path) -> str:
    """Say what is wrong with a folder in which no folder has images."""
    expected = "A folder of images for each class is expected, directly below or in train/, val/ and test/."
    images = loose_images(folder)
    if images:
        return f"{folder} has {images} images but no class folders. {expected}"
    is_empty = next(folder.iterdir(), None) is None
    return f"{folder} {'is empty' if is_empty else 'has no images in it'}. {expected}"


def _near(folder: Path) -> str:
    beside = folder.parent
    return did_you_mean(folder.name, [path.name for path in visible_folders(beside)]) if beside.is_dir() else ""


class FolderDataset(Dataset):
    """Images in class folders. The names of the folders, of all splits together, are the class names, sorted.

    Folders below a class folder belong to the class. Keys are paths relative to the split's folder, because the same
    file name may occur in several classes.

    Raises:
        UsageError: no folder is given.
        FgvcError: see `fgvc_datasets.folder.find_splits`.
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
