"""The index of shards: where each image is, and its class. Arrays, so that a million images take about 50 MB."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fgvc_cli.errors import FgvcError

FORMAT = 1


@dataclass(frozen=True)
class Index:
    """Images in shards, N in the order of the shards.

    Attributes:
        classes: names, in the order of the labels.
        base: folder or URL of the shards; relative to the folder of the index.
        shards: names below `base`.
        splits: of the shards.
        shard_bytes: size of each shard.
        shard: number of each image's shard (int32 N).
        offset: of each image in its shard, in bytes (int64 N).
        size: of each image in bytes (int64 N).
        label: class of each image (int32 N).
        names: the names of all images in their shards, one after the other in UTF-8 (uint8).
        ends: where each name ends in `names` (int64 N).
    """

    classes: tuple[str, ...]
    base: str
    shards: tuple[str, ...]
    splits: tuple[str, ...]
    shard_bytes: tuple[int, ...]
    shard: np.ndarray
    offset: np.ndarray
    size: np.ndarray
    label: np.ndarray
    names: np.ndarray
    ends: np.ndarray

    def __len__(self) -> int:
        return len(self.shard)

    def name(self, image: int) -> str:
        """Return the name of an image in its shard."""
        start = self.ends[image - 1] if image else 0
        return self.names[start : self.ends[image]].tobytes().decode("utf-8", "surrogateescape")

    def digest(self) -> str:
        """Return the SHA-256 of everything but the place of the shards."""
        digest = hashlib.sha256(json.dumps(self._header(base="")).encode())
        for array in (self.shard, self.offset, self.size, self.label, self.names):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def _header(self, base: str) -> dict[str, Any]:
        shards = [list(row) for row in zip(self.shards, self.splits, self.shard_bytes, strict=True)]
        return {"format": FORMAT, "base": base, "classes": list(self.classes), "shards": shards}

    def save(self, path: Path) -> None:
        """Write the index: an NPZ file with its header in JSON."""
        header = np.frombuffer(json.dumps(self._header(self.base)).encode(), np.uint8)
        arrays: dict[str, Any] = {"shard": self.shard, "offset": self.offset, "size": self.size, "label": self.label}
        part = path.with_name(f"{path.name}.part")
        with part.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, header=header, **arrays, names=self.names, ends=self.ends)
        part.replace(path)


def load_index(path: Path) -> Index:
    """Read an index.

    Raises:
        FgvcError: the file is missing, damaged or of another version.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            header = json.loads(arrays["header"].tobytes())
            found = {name: arrays[name] for name in ("shard", "offset", "size", "label", "names", "ends")}
        if header["format"] != FORMAT:
            raise FgvcError(f"{path} was written by another version of fgvc; index the shards again (fgvc data index)")
        columns: Sequence[Sequence[Any]] = list(zip(*header["shards"], strict=True)) or [(), (), ()]
        shards, splits, sizes = map(tuple, columns)
        index = Index(tuple(header["classes"]), str(header["base"]), shards, splits, sizes, **found)
        lengths = {len(found[name]) for name in ("shard", "offset", "size", "label", "ends")}
        if len(lengths) != 1 or (len(index) and found["ends"][-1] != len(found["names"])):
            raise ValueError("its arrays do not fit together")
        return index
    except FileNotFoundError:
        raise FgvcError(f"{path}: no such file; fgvc data index FOLDER writes it") from None
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise FgvcError(f"{path} is not an index of shards, or is damaged ({error}); run fgvc data index") from error
