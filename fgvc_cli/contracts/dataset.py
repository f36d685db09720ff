"""The dataset contract: named splits of labeled images, finding image files, and obtaining them."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fgvc_cli.contracts.taxonomy import Taxonomy
from fgvc_cli.errors import FgvcError

IMAGE_SUFFIXES = frozenset(
    {".avif", ".bmp", ".gif", ".heic", ".heif", ".hif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg"}
    | {".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp"}
)
"""Suffixes of image files, in lower case."""


@dataclass(frozen=True)
class ImageFolder:
    """The content of a folder, with its subfolders.

    Attributes:
        path: of the folder.
        images: image files directly in it, sorted by name.
        folders: subfolders, sorted by name.
        ignored: number of other files directly in it, by suffix in lower case ("" for none).
        real: its path without links.
    """

    path: Path
    images: tuple[Path, ...]
    folders: tuple[ImageFolder, ...]
    ignored: Mapping[str, int]
    real: str

    @property
    def has_images(self) -> bool:
        """Whether there is an image in it or in a subfolder."""
        return bool(self.images) or any(each.has_images for each in self.folders)

    @property
    def with_images(self) -> list[ImageFolder]:
        """The subfolders that have images."""
        return [each for each in self.folders if each.has_images]

    def all_images(self) -> list[Path]:
        """List the images in it and its subfolders, sorted by path; a folder that links lead to twice counts once."""
        return sorted(self._walk(set()), key=lambda path: path.parts)

    def total_ignored(self) -> Counter[str]:
        """Return the number of other files in it and its subfolders, by suffix."""
        return sum((each.total_ignored() for each in self.folders), Counter(self.ignored))

    def _walk(self, seen: set[str]) -> Iterator[Path]:
        if self.real not in seen:
            seen.add(self.real)
            yield from self.images
            for each in self.folders:
                yield from each._walk(seen)


def scan_folder(folder: Path) -> ImageFolder:
    """Read the content of a folder and its subfolders.

    Images are recognized by `IMAGE_SUFFIXES`, in upper or lower case. Hidden files and folders and `__MACOSX` are
    skipped. Links to folders are followed, unless they lead to a folder that they are in.

    Raises:
        FgvcError: a folder cannot be read.
    """
    return _scan(folder, ())


def find_images(folder: Path) -> list[Path]:
    """List the image files in a folder and its subfolders, sorted by path; see `scan_folder`.

    Raises:
        FgvcError: a folder cannot be read.
    """
    return scan_folder(folder).all_images()


def has_images(folder: Path) -> bool:
    """Return whether `find_images` would find an image in a folder.

    Raises:
        FgvcError: a folder cannot be read.
    """
    return scan_folder(folder).has_images


def visible_folders(folder: Path) -> list[Path]:
    """List the subfolders of a folder, sorted by name, without hidden ones and `__MACOSX`.

    Raises:
        FgvcError: the folder cannot be read.
    """
    return sorted(folder / entry.name for entry in _entries(folder) if _is_folder(entry))


def _scan(folder: Path, above: tuple[str, ...]) -> ImageFolder:
    real = os.path.realpath(folder)
    images, inside, ignored = [], [], Counter[str]()
    for entry in sorted(_entries(folder), key=lambda entry: entry.name):
        if _is_folder(entry):
            if os.path.realpath(entry.path) not in (*above, real):
                inside.append(_scan(folder / entry.name, (*above, real)))
            continue
        suffix = os.path.splitext(entry.name)[1].lower()  # noqa: PTH122  a Path per file is 3x slower
        if suffix in IMAGE_SUFFIXES:
            images.append(folder / entry.name)
        else:
            ignored[suffix] += 1
    return ImageFolder(folder, tuple(images), tuple(inside), ignored, real)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads in circles is a file that cannot be read
        return False


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [e for e in entries if not e.name.startswith(".") and e.name != "__MACOSX"]
    except OSError as error:
        raise FgvcError(f"folder {folder} cannot be read: {error.strerror}") from error


@dataclass(frozen=True)
class Download:
    """A file to download.

    Attributes:
        url: download URL.
        file: path to save it at, relative to the dataset's folder.
        checksum: the published "md5:..." or "sha256:..."; empty if there is none.
        size: exact size in bytes; 0 if unknown.
        about: approximate size in bytes, if only that is published; shown before downloading, not verified.
        unpack: folder to extract the archive into, relative to the dataset's ("": the folder itself); None for a file
            that is not an archive. The archive is deleted after extraction.
        strip: number of leading folders to strip from the archive's names (`tar --strip-components`).
        gives: files and folders that exist afterwards, relative to the dataset's folder. If they exist already, nothing
            is downloaded.
    """

    url: str
    file: str
    checksum: str = ""
    size: int = 0
    about: int = 0
    unpack: str | None = None
    strip: int = 0
    gives: tuple[str, ...] = ()

    @property
    def bytes(self) -> int:
        """Exact or approximate size in bytes; 0 if unknown."""
        return self.size or self.about

    @property
    def results(self) -> tuple[str, ...]:
        """Files and folders that exist afterwards: `gives`, or the file itself."""
        return self.gives or (self.file,)


@dataclass(frozen=True)
class Provision:
    """The files of a dataset and how to get them.

    Attributes:
        folder: the dataset's folder, which may not exist yet.
        needed: files and folders, relative to `folder`, that the dataset requires.
        downloads: files to download.
        by_hand: instructions for files without a download: where to get them and where to put them.
        homepage: URL of the dataset.
        license: terms of use, in one line.
    """

    folder: Path
    needed: tuple[str, ...]
    downloads: tuple[Download, ...] = field(default=())
    by_hand: str = ""
    homepage: str = ""
    license: str = ""

    def missing(self) -> tuple[str, ...]:
        """Return the required files and folders that do not exist."""
        return tuple(name for name in self.needed if not (self.folder / name).exists())

    def require(self, name: str, settings: str = "") -> Path:
        """Return the folder if it is complete.

        Args:
            name: name of the dataset.
            settings: options that differ from their defaults, such as " `dataset.version=2018`".

        Raises:
            FgvcError: files are missing; names them and the command that gets them.
        """
        missing = self.missing()
        if not missing:
            return self.folder
        lacks = ", ".join(missing[:4]) + (f" and {len(missing) - 4} more" if len(missing) > 4 else "")
        raise FgvcError(f"{name} not found: {self.folder} lacks {lacks}. Next: fgvc data prepare {name}{settings}")


Box = tuple[int, int, int, int]


def no_note(text: str) -> None:
    """Discard a note."""


def no_progress(what: str, done: int, total: int) -> None:
    """Show no progress."""


@dataclass(frozen=True)
class DatasetRequest:
    """Arguments that the host passes to a dataset.

    Attributes:
        folder: the folder or file given as `data`, or None.
        root: folder of named datasets (FGVC_DATA).
        cache: folder for generated files (FGVC_CACHE).
        seed: seed for a dataset that generates images or splits.
        note: called with a line for the user, such as files that were ignored.
        progress: called with the progress of long work: (description, images done, total images).
    """

    folder: Path | None
    root: Path
    cache: Path
    seed: int
    note: Callable[[str], None] = no_note
    progress: Callable[[str, int, int], None] = no_progress


class EncodedImage(ABC):
    """The content of an image file that is no file of its own, such as a member of a tar archive.

    It is read when it is needed, also in worker processes, to which it is sent by pickle.

    Attributes:
        name: unique in the dataset, for messages; it stands for the content together with `size`.
        size: of the content in bytes.
    """

    name: str
    size: int

    @abstractmethod
    def read(self) -> bytes:
        """Return the content.

        Raises:
            FgvcError: it cannot be read.
        """

    def __str__(self) -> str:
        return self.name


class Split:
    """Images of one split with their labels.

    Attributes:
        name: "train", "val", "test" or the dataset's own name.
        images: files, `EncodedImage`s or uint8 arrays H,W,3, one per image.
        labels: indices into the dataset's class names, one per image.
        keys: a short name per image, unique in the split, for tables and files.
        parts: boxes (x0, y0, x1, y1, in pixels) of named parts, one dict per image; None if unknown.
        origin: origin of the split, such as "official" or "split off from train (seed 0)"; empty for a user's own.
        groups: the group of each image, such as the individual it shows: images of one group stay together when
            splits are drawn; None: each image on its own.
    """

    def __init__(
        self,
        name: str,
        images: Sequence[Path | EncodedImage | np.ndarray],
        labels: Sequence[int],
        keys: Sequence[str],
        parts: Sequence[dict[str, Box]] | None = None,
        origin: str = "",
        groups: Sequence[str] | None = None,
    ) -> None:
        if not len(images) == len(labels) == len(keys):
            raise ValueError(f"{len(images)} images, {len(labels)} labels and {len(keys)} keys differ in number")
        self.name, self.images, self.labels, self.keys = name, images, labels, keys
        self.parts, self.origin, self.groups = parts, origin, groups

    def __len__(self) -> int:
        return len(self.labels)


class Dataset(ABC):
    """Named splits of labeled images.

    The host calls the component's target as `target(request=..., options=...)`. Labels are indices into `class_names`
    and follow from the names of classes, not from the order of a split's folders, because a split may lack classes.
    Opening a dataset downloads nothing.

    Raises:
        FgvcError: files are missing; says which, and how to get them.
    """

    name: str
    class_names: tuple[str, ...]

    @classmethod
    def provision(cls, request: DatasetRequest, options: Any) -> Provision | None:  # noqa: ARG003
        """Return the required files and how to get them, for `fgvc data prepare`.

        None for a user's own data and for generated images.
        """
        return None

    @abstractmethod
    def splits(self) -> tuple[str, ...]:
        """Return the names of the splits, "train" first."""

    @abstractmethod
    def split(self, name: str) -> Split:
        """Return one split."""

    def attributes(self) -> tuple[str, ...]:
        """Return the names of the attributes of images, such as the columns of a table."""
        return ()

    def attribute(self, name: str, split: str) -> Sequence[str]:
        """Return the value of an attribute for each image of a split, such as the individual that it shows."""
        raise KeyError(f"{self.name} has no attribute '{name}' of {split}")

    def ignored_files(self) -> Mapping[str, int]:
        """Return the number of files in the dataset's folder that are no images, by suffix in lower case."""
        return {}

    def taxonomy(self) -> Taxonomy | None:
        """Return the classes with their ancestors, such as genus and family, if known."""
        return None

    def deciding_parts(self) -> dict[str, tuple[str, ...]] | None:
        """Return the discriminative parts of each class, if known."""
        return None

    def identity(self) -> dict[str, Any]:
        """Return what a run records about the origin of the images; "folder" is their folder, if there is one."""
        return {"name": self.name}


def names_digest(splits: Iterable[Split]) -> str:
    """Return the SHA-256 of the splits' names and keys, in order."""
    digest = hashlib.sha256()
    for split in splits:
        digest.update("\n".join([split.name, *split.keys, ""]).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
