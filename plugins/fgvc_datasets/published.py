"""What published datasets share: their files below the data root, official splits, and reading published lists."""

from __future__ import annotations

import shlex
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, ClassVar

from fgvc_cli.contracts import Dataset, DatasetRequest, Download, Provision, Split
from fgvc_cli.contracts.dataset import names_digest
from fgvc_cli.errors import FgvcError

OFFICIAL = "official"
"""Origin of a split that is used as published."""

DAMAGED = "the file is damaged; delete it and prepare the dataset again"


class PublishedDataset(Dataset):
    """A published dataset in its official layout.

    A subclass declares its files in class attributes (or in `provision`, if they depend on options), and reads
    `class_names` and the splits in `read`.

    Raises:
        FgvcError: files are missing, or differ from the published ones.
    """

    title: ClassVar[str]
    """Name of the component."""
    folder_name: ClassVar[str] = ""
    """Its folder below the data root; empty: `title`."""
    needed: ClassVar[tuple[str, ...]] = ()
    """Files and folders below that folder that must exist."""
    downloads: ClassVar[tuple[Download, ...]] = ()
    by_hand: ClassVar[str] = ""
    """Instructions for a manual download, with `{folder}` for the folder and `{root}` for the data root."""
    homepage: ClassVar[str] = ""
    license: ClassVar[str] = ""

    def __init__(self, request: DatasetRequest, options: Any) -> None:
        self.name, self.options = self.title, options
        chosen = ((field.name, getattr(options, field.name)) for field in fields(options))
        defaults = {field.name: field.default for field in fields(options)}
        self.settings = "".join(f" `dataset.{name}={value}`" for name, value in chosen if value != defaults[name])
        self.folder = self.provision(request, options).require(self.name, self.settings).absolute()
        self._splits: dict[str, Split] = {}
        self.read(request)

    @classmethod
    def provision(cls, request: DatasetRequest, options: Any) -> Provision:  # noqa: ARG003
        """Return the required files below the data root and how to get them."""
        folder = request.root / (cls.folder_name or cls.title)
        by_hand = cls.by_hand.format(folder=shlex.quote(str(folder)), root=shlex.quote(str(request.root)))
        return Provision(folder, cls.needed, cls.downloads, by_hand, cls.homepage, cls.license)

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
        """Add a split of files in the dataset's folder; keys are by default the paths relative to the folder."""
        keys = [image.relative_to(self.folder).as_posix() for image in images] if keys is None else keys
        self._splits[name] = Split(name, images, labels, keys, origin=origin)

    def splits(self) -> tuple[str, ...]:
        """Return the names of the splits, "train" first."""
        return tuple(self._splits)

    def split(self, name: str) -> Split:
        """Return one split, in the order of the published lists."""
        return self._splits[name]

    def identity(self) -> dict[str, Any]:
        """Return the folder, the options, the number of images per split, and a digest of their names."""
        return {
            "name": self.name,
            "folder": str(self.folder),
            **asdict(self.options),
            "images": {name: len(split) for name, split in self._splits.items()},
            "names_sha256": names_digest(self._splits.values()),
        }


def lines_of(path: Path) -> Iterator[tuple[int, str]]:
    """Return the non-empty lines of a text file, each with its number from 1.

    Raises:
        FgvcError: the file cannot be read, or is not UTF-8 text.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise FgvcError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise FgvcError(f"{path}: not UTF-8 text at byte {error.start}; {DAMAGED}") from error
    return ((number, line.strip()) for number, line in enumerate(text.splitlines(), 1) if line.strip())


def pairs_of(path: Path) -> dict[str, str]:
    """Read a file whose lines are an identifier, a blank and a value.

    Raises:
        FgvcError: the file cannot be read or is empty, or a line has no value or repeats an identifier.
    """
    pairs: dict[str, str] = {}
    for number, line in lines_of(path):
        identifier, _, value = line.partition(" ")
        if not value or identifier in pairs:
            wrong = "repeats an identifier" if value else "is not an identifier, a blank and a value"
            raise FgvcError(f"{path}, line {number}: '{line[:80]}' {wrong}; {DAMAGED}")
        pairs[identifier] = value.strip()
    if not pairs:
        raise FgvcError(f"{path}: empty; {DAMAGED}")
    return pairs


def value_of(pairs: Mapping[str, str], identifier: str, path: Path) -> str:
    """Return the value of an identifier in `pairs`, which were read from `path`.

    Raises:
        FgvcError: the identifier is missing.
    """
    if identifier not in pairs:
        raise FgvcError(f"{path}: no line for '{identifier}', which the other lists name; {DAMAGED}")
    return pairs[identifier]


def origin_of(request: DatasetRequest, split: str, images: int, published: Mapping[str, int]) -> str:
    """Return the origin of a split that follows published lists.

    If the lists have another number of images than `published`, that is noted.
    """
    if images == published[split]:
        return OFFICIAL
    differs = f"{images:,} images are listed here where {published[split]:,} are published"
    request.note(f"the {split} split is not the official one: {differs}")
    return f"not the official one: {differs}"
