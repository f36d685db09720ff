"""The dataset `shards`: random access to the images in tar files by their index."""

from __future__ import annotations

import tarfile
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, overload

import numpy as np

from fgvc_cli.contracts import Dataset, DatasetRequest, EncodedImage, Split
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_datasets.options import ShardsOptions
from fgvc_datasets.shards.index import Index, load_index
from fgvc_datasets.shards.store import filesystem, is_url

T = TypeVar("T")

HEADER = tarfile.BLOCKSIZE
"""Bytes of the tar header before each file."""

NAME_LENGTH = 99
"""A longer name is not in the header itself."""


class ShardsDataset(Dataset):
    """Images in tar files, listed in an index that `fgvc data index` writes.

    Keys are the name of the shard and that of the image in it.

    Raises:
        UsageError: no index is given.
        FgvcError: the index is missing or damaged, or a shard is missing or has another size.
    """

    def __init__(self, request: DatasetRequest, options: ShardsOptions) -> None:
        if request.folder is None:
            raise UsageError("the dataset 'shards' needs an index (fgvc data index FOLDER): give it as `data`")
        self.file = request.folder.absolute()
        self._index = load_index(self.file)
        base = options.base or self._index.base
        self.base = base if is_url(base) else str(self.file.parent / base)
        self.name = self.file.parent.name if self.file.name == "index.shards" else self.file.stem
        self.class_names = self._index.classes
        self._split_of = np.array(self._index.splits)[self._index.shard]
        self._check_shards()

    def splits(self) -> tuple[str, ...]:
        """Return the splits that shards are of, "train" first."""
        return tuple(name for name in ("train", "val", "test") if name in self._index.splits)

    def split(self, name: str) -> Split:
        """Return the images of one split, in the order of the shards."""
        chosen = np.flatnonzero(self._split_of == name)
        labels: Any = self._index.label[chosen].tolist()
        origin = "" if len(self.splits()) > 1 else f"all shards of {self.base}, whose names name no other split"
        return Split(name, Images(self._index, self.base, chosen), labels, Keys(self._index, chosen), origin=origin)

    def identity(self) -> dict[str, Any]:
        """Return index and place of the shards, the number of images per split, and a digest of the index."""
        counts = {name: int((self._split_of == name).sum()) for name in self.splits()}
        digest = self._index.digest()
        return {"name": "shards", "file": str(self.file), "folder": self.base, "images": counts, "rows_sha256": digest}

    def _check_shards(self) -> None:
        """Compare the sizes of the shards with the index; of a store that cannot be listed, reading will tell."""
        fs, root = filesystem(self.base)
        try:
            there = {path: info.get("size") for path, info in fs.find(root, detail=True).items()}
        except (OSError, NotImplementedError, ValueError):
            there = {}
        if is_url(self.base) and not there:
            return
        for name, size in zip(self._index.shards, self._index.shard_bytes, strict=True):
            found = there.get(f"{root.rstrip('/')}/{name}", -1)
            if found == -1:
                raise FgvcError(f"{self.file}: no shard {name} in {self.base}; `dataset.base` names another place")
            if found is not None and found != size:
                raise FgvcError(
                    f"{self.file}: the shard {name} has {found} bytes and had {size} when it was indexed: it is "
                    "truncated, or was written again; get it again, or run fgvc data index again"
                )


@dataclass(frozen=True)
class ShardImage(EncodedImage):
    """An image in a shard.

    Attributes:
        name: shard and name in the shard.
        size, offset: in bytes.
        base, shard: where the shard is.
    """

    name: str
    size: int
    offset: int
    base: str
    shard: str

    def read(self) -> bytes:
        """Return the bytes of the image.

        Raises:
            FgvcError: the shard cannot be read, is truncated, or has another file there.
        """
        fs, root = filesystem(self.base)
        try:
            data: bytes = fs.cat_file(f"{root.rstrip('/')}/{self.shard}", self.offset - HEADER, self.offset + self.size)
        except Exception as error:  # each store has its own
            raise FgvcError(f"the shard {self.shard} cannot be read: {str(error) or type(error).__name__}") from error
        if len(data) < HEADER + self.size:
            raise FgvcError(f"the shard {self.shard} is truncated")
        try:
            header = tarfile.TarInfo.frombuf(data[:HEADER], "utf-8", "surrogateescape")
            member = self.name.removeprefix(f"{self.shard}/")
            same = header.size == self.size and (header.name == member or len(member) > NAME_LENGTH)
        except tarfile.HeaderError:
            same = False
        if not same:
            raise FgvcError(f"the shard {self.shard} was written again since it was indexed: run fgvc data index again")
        return data[HEADER:]


class _Indexed(Sequence[T]):
    """What belongs to some of the images of an index, which are held as their positions."""

    def __init__(self, index: Index, chosen: np.ndarray) -> None:
        self.of, self.chosen = index, chosen

    def __len__(self) -> int:
        return len(self.chosen)

    @abstractmethod
    def at(self, position: int) -> T:
        """Return what belongs to one image."""

    @overload
    def __getitem__(self, position: int) -> T: ...

    @overload
    def __getitem__(self, position: slice) -> list[T]: ...

    def __getitem__(self, position: int | slice) -> T | list[T]:
        if isinstance(position, slice):
            return [self.at(i) for i in range(*position.indices(len(self)))]
        return self.at(position)

    def names(self) -> Iterator[str]:
        """Yield shard and name of each image, several times as fast as one by one."""
        index, joined = self.of, self.of.names.tobytes()
        ends = index.ends[self.chosen]
        starts = np.where(self.chosen > 0, index.ends[self.chosen - 1], 0)
        for shard, start, end in zip(index.shard[self.chosen].tolist(), starts.tolist(), ends.tolist(), strict=True):
            yield f"{index.shards[shard]}/{joined[start:end].decode('utf-8', 'surrogateescape')}"


class Images(_Indexed[ShardImage]):
    """The images of a split; an object exists only while it is used."""

    def __init__(self, index: Index, base: str, chosen: np.ndarray) -> None:
        super().__init__(index, chosen)
        self.base = base

    def at(self, position: int) -> ShardImage:
        """Return an image."""
        index, image = self.of, int(self.chosen[position])
        shard, size, offset = index.shards[index.shard[image]], int(index.size[image]), int(index.offset[image])
        return ShardImage(f"{shard}/{index.name(image)}", size, offset, self.base, shard)

    def __iter__(self) -> Iterator[ShardImage]:
        index, chosen = self.of, self.chosen
        columns = (index.shard[chosen].tolist(), index.size[chosen].tolist(), index.offset[chosen].tolist())
        for name, shard, size, offset in zip(self.names(), *columns, strict=True):
            yield ShardImage(name, size, offset, self.base, index.shards[shard])


class Keys(_Indexed[str]):
    """The keys of the images of a split."""

    def at(self, position: int) -> str:
        """Return a key."""
        image = int(self.chosen[position])
        return f"{self.of.shards[self.of.shard[image]]}/{self.of.name(image)}"

    def __iter__(self) -> Iterator[str]:
        return self.names()
