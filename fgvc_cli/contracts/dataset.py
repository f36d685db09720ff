"""The dataset contract: named splits of labeled images, and how to obtain their files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fgvc_cli.errors import FgvcError


@dataclass(frozen=True)
class Download:
    """A file that can be had by a link.

    Attributes:
        url: the link.
        file: name to save it under, below the dataset's folder.
        checksum: "md5:..." or "sha256:..." as published; empty if none is.
        size: bytes; 0 if not known exactly.
        about: bytes, roughly, where that is all that is published: told before downloading, never compared.
        unpack: folder, relative to the dataset's, that the archive is unpacked in ("" is the folder itself); None
            for a file that is used as it is. An archive is removed once it is unpacked.
        strip: leading folders of the archive's names that are left off as it is unpacked (`tar --strip-components`).
        gives: what there is once this is in place, relative to the dataset's folder. What is there already is not
            downloaded again.
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
        """Bytes, exactly or roughly; 0 if not known at all."""
        return self.size or self.about

    @property
    def results(self) -> tuple[str, ...]:
        """What there is once this is in place: `gives`, or the file itself."""
        return self.gives or (self.file,)


@dataclass(frozen=True)
class Provision:
    """What a dataset needs, and how it is had.

    Attributes:
        folder: where it lives; need not exist yet.
        needed: files and folders, relative to `folder`, without which the set is not there.
        downloads: links, if any work; what they do not give is had by hand.
        by_hand: what a person does where a link is dead or asks for a form: where to get it, what to put where.
        homepage: page of the dataset.
        license: what one may do with it, in a line.
    """

    folder: Path
    needed: tuple[str, ...]
    downloads: tuple[Download, ...] = field(default=())
    by_hand: str = ""
    homepage: str = ""
    license: str = ""

    def missing(self) -> tuple[str, ...]:
        """Return what is needed and not there."""
        return tuple(name for name in self.needed if not (self.folder / name).exists())

    def require(self, name: str, settings: str = "") -> Path:
        """Return the folder if the set is there.

        Args:
            name: of the dataset, as a person types it.
            settings: what stands behind the name on the command line, such as " --set dataset.version=2018".

        Raises:
            FgvcError: something is missing; says what, and how it is had.
        """
        missing = self.missing()
        if not missing:
            return self.folder
        lacks = ", ".join(missing[:4]) + (f" and {len(missing) - 4} more" if len(missing) > 4 else "")
        raise FgvcError(f"{name} is not here: {self.folder} lacks {lacks}. Next: fgvc data prepare {name}{settings}")


Box = tuple[int, int, int, int]


def no_note(text: str) -> None:
    """Tell nobody."""


def no_progress(what: str, done: int, total: int) -> None:
    """Show nothing."""


@dataclass(frozen=True)
class DatasetRequest:
    """What the host tells a dataset.

    Attributes:
        folder: the folder or file that `--data` names, or None.
        root: where named datasets live (`--data-root`, FGVC_DATA).
        cache: where the program may keep what it makes (FGVC_CACHE).
        seed: for a dataset that draws or splits.
        note: takes a line that a person should know, such as what was ignored in a folder.
        progress: takes how far long work is, as (what is being done, images done, images in all).
    """

    folder: Path | None
    root: Path
    cache: Path
    seed: int
    note: Callable[[str], None] = no_note
    progress: Callable[[str, int, int], None] = no_progress


class Split:
    """Images of one split with their labels.

    Attributes:
        name: "train", "val", "test" or the dataset's own name for it.
        images: files (or uint8 arrays H,W,3), one an image.
        labels: indices into the dataset's class names, one an image.
        keys: a short name for each image, unique in the split, for tables and files.
        parts: for each image the boxes (x0, y0, x1, y1 in its pixels) of named parts, where they are known.
        origin: how the split came about: "official", "split off from train (seed 0)"; empty if it is a person's own.
    """

    def __init__(
        self,
        name: str,
        images: Sequence[Path | np.ndarray],
        labels: Sequence[int],
        keys: Sequence[str],
        parts: Sequence[dict[str, Box]] | None = None,
        origin: str = "",
    ) -> None:
        if not len(images) == len(labels) == len(keys):
            raise ValueError(f"{len(images)} images, {len(labels)} labels and {len(keys)} keys do not go together")
        self.name, self.images, self.labels, self.keys = name, images, labels, keys
        self.parts, self.origin = parts, origin

    def __len__(self) -> int:
        return len(self.labels)


class Dataset(ABC):
    """Named splits of labeled images.

    The host calls the component's target as `target(request=..., options=...)`. Labels are indices into
    `class_names`, and come from the names of the classes, never from the order of a split's folders: a split may
    lack classes. It raises `FgvcError` saying what to put where if the images are not there; it downloads nothing.
    """

    name: str
    class_names: tuple[str, ...]

    @classmethod
    def provision(cls, request: DatasetRequest, options: Any) -> Provision | None:  # noqa: ARG003
        """Return what files it needs and how they are had (`fgvc data prepare`), before it is opened.

        None for a dataset that a person brings along or that makes its images itself.
        """
        return None

    @abstractmethod
    def splits(self) -> tuple[str, ...]:
        """Return the names of the splits there are, "train" first."""

    @abstractmethod
    def split(self, name: str) -> Split:
        """Return one split."""

    def deciding_parts(self) -> dict[str, tuple[str, ...]] | None:
        """Return for each class the parts that tell it from the others, if the dataset knows them."""
        return None

    def identity(self) -> dict[str, Any]:
        """Return what a run should record of where the images are from; "folder" is where they lie, if in one."""
        return {"name": self.name}
