"""What the datasets that torchvision supports share: it reads their lists, this module checks them."""

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
    """Files given by their names below a folder; each `Path` is created on access.

    A list of the 2.7 million paths of iNaturalist 2021 would take 0.9 GB; the names are in memory anyway, as keys.
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
    """One official split, as in the published lists.

    Attributes:
        class_names: of the whole dataset, in its own order.
        images: files, relative to the dataset's folder.
        labels: indices into `class_names`, one per image.
    """

    class_names: Sequence[str]
    images: Sequence[str]
    labels: Sequence[int]


class TorchvisionDataset(PublishedDataset):
    """A dataset in the layout of its torchvision class, so that an existing copy can be used.

    Labels are those of the published lists, which number the classes the same way in every split.
    """

    published: ClassVar[Mapping[str, int]]
    """Number of images per official split."""

    @abstractmethod
    def listing(self, split: str) -> Listing:
        """Read an official split; the caller reports the errors that damaged lists cause."""

    @abstractmethod
    def lists(self, split: str) -> tuple[str, ...]:
        """Return the files that `listing` reads, relative to the dataset's folder."""

    def published_images(self) -> Mapping[str, int]:
        """Return `published`; a subclass may let it depend on the options."""
        return self.published

    def official_splits(self) -> Mapping[str, str]:
        """Return the official split that each split is, "train" first."""
        return {name: name for name in self.published}

    def origin(self, name: str, official: str) -> str:
        """Return the origin of a complete split."""
        return OFFICIAL if name == official else f"official {official}"

    def read(self, request: DatasetRequest) -> None:
        """Read the splits.

        Raises:
            FgvcError: a list is missing or damaged, the lists contradict each other, or no image exists.
        """
        for name, official in self.official_splits().items():
            with self._reporting_damage(official):
                listing = self.listing(official)
            self._check(listing, official)
            self.class_names = tuple(listing.class_names)
            origin = self.origin(name, official)
            complete = origin_of(request, official, len(listing.labels), self.published_images())
            if complete != OFFICIAL:
                origin = complete if origin == OFFICIAL else f"{origin}; {complete}"
            self.add(name, FilesBelow(self.folder, listing.images), listing.labels, origin, listing.images)

    def damaged(self, path: Path, cause: str) -> FgvcError:
        """Return the error for a file or folder that is not as published."""
        prepare = f"prepare {self.name} again" + (f" with{self.settings}" if self.settings else "")
        if path.is_dir():
            return FgvcError(f"{path}: {cause}; remove extra files, or move the folder away and {prepare}")
        return FgvcError(f"{path}: {cause}; {'delete it and ' if path.exists() else ''}{prepare}")

    def relative(self, path: str | Path) -> str:
        """Return a path from torchvision relative to the dataset's folder."""
        return str(path).removeprefix(f"{self.folder}{os.sep}").replace(os.sep, "/")

    @contextmanager
    def _reporting_damage(self, split: str) -> Iterator[None]:
        """Turn the errors that missing and damaged files cause into an `FgvcError` that names them."""
        files = [self.folder / name for name in self.lists(split)]
        missing = next((path for path in files if not path.exists()), None)
        if missing is not None:
            raise self.damaged(missing, "missing")
        others = f" (with {', '.join(path.name for path in files[1:])})" if files[1:] else ""
        try:
            yield
        except FgvcError:
            raise
        except _damage() as error:
            if isinstance(error, OSError) and error.errno is not None:  # scipy raises one without errno on a short file
                raise FgvcError(f"{error.filename or files[0]}: cannot be read: {error.strerror}") from error
            raise self.damaged(files[0], f"not as published{others}: {_cause(error)}") from error

    def _check(self, listing: Listing, split: str) -> None:
        path = self.folder / self.lists(split)[0]
        classes = len(listing.class_names)
        if len(set(listing.class_names)) < classes:
            raise self.damaged(path, "not as published: two classes have the same name")
        if self._splits and tuple(listing.class_names) != self.class_names:
            raise self.damaged(path, "not as published: its classes differ from those of the other splits")
        if not listing.labels:
            raise self.damaged(path, "not as published: it lists no images")
        if not all(0 <= label < classes for label in listing.labels):
            raise self.damaged(path, f"not as published: a label exceeds the {classes} classes")
        if not any((self.folder / name).exists() for name in listing.images):
            raise FgvcError(
                f"{self.folder / listing.images[0]} does not exist, nor does any other image that {path.name} lists; "
                "put the images there"
            )


def _damage() -> tuple[type[Exception], ...]:
    """Return the exceptions that damaged lists raise in torchvision (mostly RuntimeError), scipy and json."""
    from scipy.io.matlab import MatReadError

    ours = (ValueError, KeyError, IndexError, TypeError, RuntimeError, OSError, EOFError)
    return *ours, zlib.error, struct.error, MatReadError


def _cause(error: Exception) -> str:
    words: Any = error.args[0] if isinstance(error, KeyError) and error.args else error
    text = " ".join(str(words).split()).rstrip(".")
    return f"it names {text!r}, which the other lists lack" if isinstance(error, KeyError) else text[:200]
