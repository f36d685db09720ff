"""X"""

from __future__ import annotations

import hashlib
import shlex
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, ClassVar

from fgvc_cli.contracts import Dataset, DatasetRequest, Provision, Split
from fgvc_cli.errors import FgvcError

OFFICIAL = "official"
"""The origin of a split that is used as published."""


class PublishedDataset(Dataset):
    """A published dataset in its official layout.

    A subclass says in `provision` what it needs, and reads `class_names` and the splits in `read`.

    Raises:
        FgvcError: files are missing (it names the command that gets them), or are not what was published.
    """

    title: ClassVar[str]
    """The name that it is registered under."""

    def __init__(self, request: DatasetRequest, options: Any) -> None:
        self.name, self.options = self.title, options
        self.settings = settings_text(options)
        self.folder = self.provision(request, options).require(self.name, self.settings).absolute()
        self._splits: dict[str, Split] = {}
        self.read(request)

    @classmethod
    @abstractmethod
    def provision(cls, request: DatasetRequest, options: Any) -> Provision:
        """Return what files it needs below the data root, and how they are had."""

    @abstractmethod
    def read(self, request: DatasetRequest) -> None:
        """Set `class_names` and call `add` for each split."""

    def add(
        self,
        name: str,
        images: Sequence[Path],
        labels: Sequence[int],
        origin: str = OFFICIAL,
        keys: Sequence[str] | None = None,
    ) -> None:
        """Add a split.

        Args:
            name: "train", "val" or "test".
            images: files below the dataset's folder.
            labels: indices into `class_names`.
            origin: how the split came about; "official" if as published.
            keys: short names; None: the paths relative to the folder.
        """
        keys = [image.relative_to(self.folder).as_posix() for image in images] if keys is None else keys
        self._splits[name] = Split(name, images, labels, keys, origin=origin)

    def splits(self) -> tuple[str, ...]:
        """Return the splits there are, "train" first."""
        return tuple(self._splits)

    def split(self, name: str) -> Split:
        """Return one split, in the order of the published lists."""
        return self._splits[name]

    def identity(self) -> dict[str, Any]:
        """Return the folder, the options, how many images each split has, and a digest of their names."""
        return {
            "name": self.name,
            "folder": str(self.folder),
            **asdict(self.options),
            "images": {name: len(split) for name, split in self._splits.items()},
            "names_sha256": names_digest(self._splits.values()),
        }


def names_digest(splits: Iterable[Split]) -> str:
    """Return the SHA-256 of the splits' names and keys, in their order."""
    digest = hashlib.sha256()
    for split in splits:
        digest.update("\n".join([split.name, *split.keys, ""]).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def settings_text(options: Any) -> str:
    """Write the options that differ from their defaults as they stand on a command line, each after a blank."""
    chosen = {field.name: getattr(options, field.name) for field in fields(options)}
    different = {f.name: chosen[f.name] for f in fields(options) if chosen[f.name] != f.default}
    return "".join(f" --set {shlex.quote(f'dataset.{name}={value}')}" for name, value in different.items())


DAMAGED = "the file is damaged: delete it, and get it again with fgvc data prepare"


def lines_of(path: Path) -> Iterator[tuple[int, str]]:
    """Give the lines of a text file that are not empty, each with its number from 1.

    Raises:
        FgvcError: it cannot be read, or is no text in UTF-8.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise FgvcError(f"{path}: cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise FgvcError(f"{path}: is no UTF-8 text at byte {error.start}; {DAMAGED}.") from error
    return ((number, line.strip()) for number, line in enumerate(text.splitlines(), 1) if line.strip())


def pairs_of(path: Path) -> dict[str, str]:
    """Read a file whose lines are an identifier, a blank and a value.

    Raises:
        FgvcError: it cannot be read, is empty, or a line has no value or an identifier that was there before.
    """
    pairs: dict[str, str] = {}
    for number, line in lines_of(path):
        identifier, _, value = line.partition(" ")
        if not value or identifier in pairs:
            wrong = "has the same identifier as a line before it" if value else "is no identifier, blank and value"
            raise FgvcError(f"{path}, line {number}: '{line[:80]}' {wrong}; {DAMAGED}.")
        pairs[identifier] = value.strip()
    if not pairs:
        raise FgvcError(f"{path}: is empty; {DAMAGED}.")
    return pairs


def value_of(pairs: Mapping[str, str], identifier: str, path: Path) -> str:
    """Return the value of an identifier that `pairs_of(path)` gave.

    Raises:
        FgvcError: the file does not have it.
    """
    if identifier not in pairs:
        raise FgvcError(f"{path}: has no line for '{identifier}', which the other lists name; {DAMAGED}.")
    return pairs[identifier]


def origin_of(request: DatasetRequest, split: str, images: int, published: Mapping[str, int]) -> str:
    """Return the origin of a split that follows published lists, and note it if they have other numbers of images.

    Args:
        request: takes the note.
        split: its name.
        images: how many the lists here name.
        published: how many images each split was published with.
    """
    if images == published[split]:
        return OFFICIAL
    differs = f"{images:,} images are listed here where {published[split]:,} are published"
    request.note(f"The {split} split is not the official one: {differs}.")
    return f"not the official one: {differs}"
