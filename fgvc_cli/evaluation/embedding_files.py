"""Files of embeddings, written batch by batch: CSV, Parquet and NPZ."""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.files import csv_cell, replacing

Row = tuple[str, str, str]
"""Image, class name and split."""

COLUMNS = ("image", "label", "split")


class EmbeddingWriter(Protocol):
    """Writes a file of embeddings."""

    def write(self, rows: Sequence[Row], embeddings: np.ndarray) -> None:
        """Add images with their embeddings B,D (float32)."""

    def close(self) -> None:
        """Write the end of the file."""


@contextmanager
def embedding_file(path: Path, width: int, force: bool = False) -> Iterator[EmbeddingWriter]:
    """Write a file of embeddings, which appears once everything is written.

    Args:
        path: ends in .csv, .parquet or .npz.
        width: D.
        force: whether an existing file may be replaced.

    Raises:
        UsageError: another suffix, or the file exists without `force`.
        FgvcError: the suffix needs a package that is not installed, or the file cannot be written.
    """
    check_path(path, force)
    with replacing(path) as part, closing(WRITERS[path.suffix.lower()](part, width)) as writer:
        yield writer


def check_path(path: Path, force: bool) -> None:
    """Check that embeddings can be written to a file; see `embedding_file`."""
    suffix = path.suffix.lower()
    if suffix not in WRITERS:
        raise UsageError(f"`out={path}`: the name must end in {', '.join(WRITERS)}")
    if suffix == ".parquet":
        try:
            import pyarrow  # noqa: F401
        except ImportError as error:
            raise FgvcError(
                f"`out={path}` needs pyarrow: pip install 'fgvc-cli[parquet]', or write .npz or .csv"
            ) from error
    if path.exists() and not force:
        raise UsageError(f"`out={path}` exists; choose another file, or replace it (`force=true`)")


class CsvWriter:
    """A line per image: image, label, split, then the D values."""

    def __init__(self, path: Path, width: int) -> None:
        self._file = path.open("w", encoding="utf-8", errors="backslashreplace", newline="")
        self._writer = csv.writer(self._file, lineterminator="\n")
        self._writer.writerow([*COLUMNS, *(f"e{i}" for i in range(width))])

    def write(self, rows: Sequence[Row], embeddings: np.ndarray) -> None:
        """Add lines; nine digits give back the float32."""
        for row, values in zip(rows, embeddings, strict=True):
            self._writer.writerow([*map(csv_cell, row), *(f"{value:.9g}" for value in values)])

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class ParquetWriter:
    """Columns image, label, split, and embedding (a list of D float32); a row group per batch."""

    def __init__(self, path: Path, width: int) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        self._pa: Any = pa
        texts = [(name, pa.string()) for name in COLUMNS]
        self._schema = pa.schema([*texts, ("embedding", pa.list_(pa.float32(), width))])
        self._width, self._writer = width, parquet.ParquetWriter(path, self._schema)

    def write(self, rows: Sequence[Row], embeddings: np.ndarray) -> None:
        """Add a row group."""
        pa = self._pa
        columns = [
            [cell.encode(errors="backslashreplace").decode() for cell in column] for column in zip(*rows, strict=True)
        ]
        values = pa.FixedSizeListArray.from_arrays(pa.array(embeddings.reshape(-1), pa.float32()), self._width)
        self._writer.write_table(pa.table([*columns, values], schema=self._schema))

    def close(self) -> None:
        """Write the footer."""
        self._writer.close()


class NpzWriter:
    """Arrays embedding (float32 N,D), image, label and split (text, N)."""

    def __init__(self, path: Path, width: int) -> None:
        self._path, self._width = path, width
        self._rows: list[Row] = []
        # On disk, so that memory does not grow with D.
        self._values = tempfile.TemporaryFile(dir=path.parent)  # noqa: SIM115

    def write(self, rows: Sequence[Row], embeddings: np.ndarray) -> None:
        """Add images."""
        self._rows.extend(rows)
        self._values.write(np.ascontiguousarray(embeddings, np.float32).tobytes())

    def close(self) -> None:
        """Write the archive."""
        with self._values:
            self._values.flush()
            shape = (len(self._rows), self._width)
            values = np.memmap(self._values, np.float32, "r", shape=shape) if shape[0] else np.empty(shape, np.float32)
            texts = {name: np.array([row[i] for row in self._rows], np.str_) for i, name in enumerate(COLUMNS)}
            with self._path.open("wb") as file:
                np.savez(file, embedding=values, **texts)  # type: ignore[arg-type]


WRITERS: dict[str, Any] = {".csv": CsvWriter, ".npz": NpzWriter, ".parquet": ParquetWriter}
"""By suffix."""
