"""What a folder of images looks like: class folders directly in it, or in folders for the splits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fgvc_cli.contracts.image_files import IMAGE_SUFFIXES, has_images, visible_folders
from fgvc_cli.errors import FgvcError, did_you_mean
from fgvc_datasets.folder_options import FolderOptions

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
