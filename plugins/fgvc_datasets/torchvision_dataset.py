"""X"""

from __future__ import annotations

import os
import struct
import zlib
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, overload

from fgvc_cli.contracts import DatasetRequest
from fgvc_cli.errors import FgvcError
from fgvc_datasets.published import OFFICIAL, PublishedDataset, origin_of


class FilesBelow(Sequence[Path]):
    """Files by their names below a folder; each `Path` is made when it is asked for.

    A list of the 2.7 million paths of iNaturalist 2021 takes 0.9 GB; the names are there anyway, as keys.
    """

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self.folder, self.names = folder, names

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> Path: ...

    @overload
    def __getitem__(self, index: slice) -> list[Path]: ...

    def __getitem__(self, index: int | slice) -> Path | list[Path]:
        if isinstance(index, slice):
            return [self.folder / name for name in self.names[index]]
        return self.folder / self.names[index]


@dataclass(frozen=True)
class Listing:
    """One official split, as its published lists have it.

    Attributes:
        class_names: of the whole dataset, in its own order.
        images: files, relative to the dataset's folder.
        labels: indices into `class_names`, one an image.
    """

    class_names: Sequence[str]
    images: Sequence[str]
    labels: Sequence[int]


class TorchvisionDataset(PublishedDataset):
    """A dataset that lies as torchvision's own class lays it out, so that one that is there already is used.

    Labels are those of the published lists, which number the classes the same way in every split.
    """

    published: ClassVar[Mapping[str, int]]
    """How many images each official split has."""

    @abstractmethod
    def listing(self, split: str) -> Listing:
        """Read an official split; what a damaged list makes a reader raise is turned into words by the caller."""

    @abstractmethod
    def lists(self, split: str) -> tuple[str, ...]:
        """Return the files that `listing` reads, relative to the dataset's folder."""

    def published_images(self) -> Mapping[str, int]:
        """Return `published`, or what it is with the options."""
        return self.published

    def official_splits(self) -> Mapping[str, str]:
        """Return for each split the official one that it is, "train" first."""
        return {name: name for name in self.published}

    def origin(self, name: str, official: str) -> str:
        """Return how a split came about, if it is complete."""
        return OFFICIAL if name == official else f"official {official}"

    def read(self, request: DatasetRequest) -> None:
        """Read the splits.

        Raises:
            FgvcError: a list is missing or damaged, the lists do not go together, or none of the images is there.
        """
        for name, official in self.official_splits().items():
            with self._as_published(official):
                listing = self.listing(official)
            self._check(listing, official)
            self.class_names = tuple(listing.class_names)
            origin = self.origin(name, official)
            complete = origin_of(request, official, len(listing.labels), self.published_images())
            if complete != OFFICIAL:
                origin = complete if origin == OFFICIAL else f"{origin}; {complete}"
            self.add(name, FilesBelow(self.folder, listing.images), listing.labels, origin, listing.images)

    def damaged(self, path: Path, cause: str) -> FgvcError:
        """Return the error that says which file or folder is not as published, and what to do."""
        prepare = f"fgvc data prepare {self.name}{self.settings}"
        if path.is_dir():
            return FgvcError(f"{path}: {cause}. Take out what does not belong there; or move it away, then: {prepare}")
        return FgvcError(f"{path}: {cause}. {'Delete it; then' if path.exists() else 'Next'}: {prepare}")

    def relative(self, path: str | Path) -> str:
        """Return a file that torchvision named, relative to the dataset's folder."""
        return str(path).removeprefix(f"{self.folder}{os.sep}").replace(os.sep, "/")

    @contextmanager
    def _as_published(self, split: str) -> Iterator[None]:
        """Turn what readers raise on missing and damaged files into an `FgvcError` that names them."""
        files = [self.folder / name for name in self.lists(split)]
        gone = next((path for path in files if not path.exists()), None)
        if gone is not None:
            raise self.damaged(gone, "is missing")
        beside = f" (with {', '.join(path.name for path in files[1:])})" if files[1:] else ""
        try:
            yield
        except FgvcError:  # a UsageError is a ValueError too
            raise
        except _damage() as error:
            if isinstance(error, OSError) and error.errno is not None:  # scipy raises one without, on a short file
                raise FgvcError(f"{error.filename or files[0]}: cannot be read: {error.strerror}.") from error
            raise self.damaged(files[0], f"is not as published{beside}: {_cause(error)}") from error

    def _check(self, listing: Listing, split: str) -> None:
        path = self.folder / self.lists(split)[0]
        classes = len(listing.class_names)
        if len(set(listing.class_names)) < classes:
            raise self.damaged(path, "is not as published: two classes have one name")
        if self._splits and tuple(listing.class_names) != self.class_names:
            raise self.damaged(path, "is not as published: its classes are not those of the other splits")
        if not listing.labels:
            raise self.damaged(path, "is not as published: it lists no images")
        if not all(0 <= label < classes for label in listing.labels):
            raise self.damaged(path, f"is not as published: a label lies beyond the {classes} classes")
        if not any((self.folder / name).exists() for name in listing.images):
            raise FgvcError(
                f"{self.folder / listing.images[0]}: is not there, nor is any other image that {path.name} lists. "
                f"Each belongs exactly there; see: fgvc data info {self.name}{self.settings}"
            )


def _damage() -> tuple[type[Exception], ...]:
    """Return what damaged lists make torchvision, scipy and json raise; torchvision's own word is RuntimeError."""
    from scipy.io.matlab import MatReadError

    ours = (ValueError, KeyError, IndexError, TypeError, RuntimeError, OSError, EOFError)
    return *ours, zlib.error, struct.error, MatReadError


def _cause(error: Exception) -> str:
    words: Any = error.args[0] if isinstance(error, KeyError) and error.args else error
    text = " ".join(str(words).split()).rstrip(".")
    return f"it names {text!r}, which the other lists lack" if isinstance(error, KeyError) else text[:200]
