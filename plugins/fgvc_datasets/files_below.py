"""The files of a large dataset, without an object for each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import overload


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
