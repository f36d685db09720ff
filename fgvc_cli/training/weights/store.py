"""The weights folder: published weights as files, for machines without a network.

Each weights are two files, `NAME.safetensors` and its record `NAME.json`, so that any two, or the whole folder, can be
copied to another machine.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from torch import Tensor

from fgvc_cli.errors import FgvcError
from fgvc_cli.files import FileLock, Locked, read_as, write_bytes, write_json

SUFFIX = ".safetensors"
LOCK_FILE = ".lock"
PATIENCE = 60.0
"""Seconds to wait for another process that writes to the folder."""


@dataclass(frozen=True)
class StoredWeights:
    """Weights in the folder.

    Attributes:
        path: of the file.
        name: of the weights, such as "resnet50.tv_in1k".
        backbone: a backbone that they are for.
        source: where they are from: a URL, a package, or a file.
        license: SPDX identifier; empty if unknown.
        size: of the file in bytes.
        sha256: of the file.
        entries: number of tensors.
    """

    path: Path
    name: str
    backbone: str
    source: str
    license: str
    size: int
    sha256: str
    entries: int

    def read(self) -> dict[str, Tensor]:
        """Verify the file and read its state dict.

        Raises:
            FgvcError: the file is not the one that was recorded.
        """
        from safetensors.torch import load_file

        self.verify()
        return load_file(self.path)

    def verify(self) -> None:
        """Compare size and SHA-256 with the record.

        Raises:
            FgvcError: they differ, or the file cannot be read.
        """
        try:
            size = self.path.stat().st_size
            digest = sha256_of(self.path)
        except OSError as error:
            raise FgvcError(f"{self.path}: {error.strerror or error}") from error
        remedy = f"copy it again with its {record_of(self.path).name}, or delete both"
        if size != self.size:
            raise FgvcError(f"{self.path} is truncated or foreign: {size:,} of {self.size:,} bytes; {remedy}")
        if digest != self.sha256:
            raise FgvcError(
                f"{self.path} is damaged or foreign (SHA-256 {digest[:8]}, recorded {self.sha256[:8]}); {remedy}"
            )


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def record_of(path: Path) -> Path:
    """Return the path of the record beside a weights file."""
    return path.with_name(path.name.removesuffix(SUFFIX) + ".json")


def find(root: Path, name: str) -> StoredWeights | None:
    """Return the weights with that name; None if they are not in the folder.

    Raises:
        FgvcError: one of the two files is missing, or the record is damaged.
    """
    path = _path(root, name)
    if not path.is_file() and not record_of(path).is_file():
        return None
    return _read_record(path)


def listed(root: Path) -> Iterator[StoredWeights | FgvcError]:
    """Yield all weights in the folder by name, and an error for each file that is not usable."""
    if not root.is_dir():
        return
    paths = {path.with_suffix(SUFFIX) if path.suffix == ".json" else path for path in root.iterdir() if path.is_file()}
    for path in sorted(path for path in paths if not path.name.startswith(".")):
        try:
            yield _read_record(path)
        except FgvcError as error:
            yield error


def put(root: Path, name: str, backbone: str, state: Mapping[str, Tensor], source: str, license: str) -> StoredWeights:
    """Write a state dict into the folder, replacing weights of the same name.

    Raises:
        FgvcError: the folder cannot be written to.
    """
    from safetensors.torch import save

    path = _path(root, name)
    data = save({key: value.detach().clone().contiguous() for key, value in state.items()})
    digest = hashlib.sha256(data).hexdigest()
    stored = StoredWeights(path, name, backbone, source, license, len(data), digest, len(state))
    with _one_writer(root):
        record_of(path).unlink(missing_ok=True)  # a file without a record is not loaded
        write_bytes(path, data)
        write_json(record_of(path), {key: value for key, value in asdict(stored).items() if key != "path"})
    return stored


@contextmanager
def _one_writer(root: Path) -> Iterator[None]:
    """Let no two processes write to the folder at once: each file has to be that of its record.

    Raises:
        FgvcError: another process writes for longer than a minute, or the folder cannot be created.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock = FileLock(root / LOCK_FILE, shared=False, timeout=PATIENCE)
    except Locked as error:
        raise FgvcError(f"Another process is writing to {root}; wait for it, or stop it first") from error
    except OSError as error:
        if root.is_dir() and os.access(root, os.W_OK):  # a file system without locks
            yield
            return
        raise FgvcError(f"Cannot write to {root}: {error.strerror or error}") from error
    try:
        yield
    finally:
        lock.close()


def _path(root: Path, name: str) -> Path:
    return root / (name.replace("/", "--") + SUFFIX)


def _read_record(path: Path) -> StoredWeights:
    if path.suffix != SUFFIX:
        raise FgvcError(f"{path} was not stored by fgvc; import it, or move it elsewhere")
    if not path.is_file():
        raise FgvcError(f"{path} is missing; copy it again, or delete {record_of(path).name}")
    if not record_of(path).is_file():
        raise FgvcError(f"{path} has no {record_of(path).name}, which has its SHA-256; copy that too, or import it")

    def parse(document: dict[str, Any]) -> StoredWeights:
        values = {field.name: document[field.name] for field in fields(StoredWeights) if field.name != "path"}
        for name, value in values.items():
            if not isinstance(value, int if name in ("size", "entries") else str):
                raise TypeError(f"{name} is {value!r}")
        if _path(path.parent, values["name"]) != path:
            raise ValueError(f"it is of {values['name']}")
        return StoredWeights(path, **values)

    return read_as(record_of(path), parse, "Copy it again, or delete it.")
