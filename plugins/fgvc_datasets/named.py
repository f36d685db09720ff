"""What the datasets of the field have in common: published files below the data root, and official splits."""

from __future__ import annotations

import hashlib
import shlex
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, ClassVar

from fgvc_cli.contracts import Dataset, DatasetRequest, Provision, Split

OFFICIAL = "official"
"""The origin of a split that is used as published."""


class NamedDataset(Dataset):
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
