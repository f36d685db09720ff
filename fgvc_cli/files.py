"""Files: atomic writes, tables, reading back, and locks that end with their process."""

from __future__ import annotations

import csv
import dataclasses
import errno
import functools
import json
import os
import re
import time
import types
import typing
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, TypeVar, Union

from fgvc_cli.errors import FgvcError

Parsed = TypeVar("Parsed")

PART = ".part"
"""Suffix of files that are being written."""
DELETE_ADVICE = "Delete it; it will be written again."
"""What to do if a file of an evaluation is damaged."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to, which replaces `path` if the block succeeds.

    Raises:
        FgvcError: the disk is full or the folder is not writable; `path` is untouched.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}{PART}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear_parts_once(path.parent.absolute())
        yield part
        _sync(part)
        part.replace(path)
        _sync(path.parent)
    except OSError as error:
        raise FgvcError(_cause(path, error)) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


PART_NAME = re.compile(rf"\..+\.(\d+){re.escape(PART)}", re.DOTALL)
"""Names of temporary files: `.summary.json.1234.part`, with the number of the process."""


def is_part(path: Path) -> bool:
    """Return whether a file is a temporary one, by its name."""
    return PART_NAME.fullmatch(path.name) is not None


def clear_parts(folder: Path) -> None:
    """Delete the temporary files in a folder into which no other process writes: killed ones left them."""
    _clear_parts(folder, lambda _: False)


@cache
def _clear_parts_once(folder: Path) -> None:
    """Delete the temporary files of processes that are gone, on the first write to a folder."""
    _clear_parts(folder, _is_running)


def _clear_parts(folder: Path, keep: Callable[[int], bool]) -> None:
    for left in folder.glob(f".*{PART}"):
        match = PART_NAME.fullmatch(left.name)
        if match is not None and not keep(int(match[1])):
            with suppress(OSError):
                left.unlink()


def _is_running(process: int) -> bool:
    if os.name == "nt":  # where signal 0 is Ctrl-C
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # another user's
        return True
    return True


def check_writable(folder: Path, what: str) -> None:
    """Check that a folder is writable; it is created if needed.

    Raises:
        FgvcError: it is not; names `what` cannot be written ("The page", "Pictures").
    """
    probe = folder / f".probe.{os.getpid()}{PART}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _clear_parts_once(folder.absolute())
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise FgvcError(
            f"{what} cannot be written to {folder.absolute()}: {error.strerror or error}; choose another `out`"
        ) from error


def write_bytes(path: Path, data: bytes) -> None:
    """Write bytes to a file atomically."""
    with replacing(path) as part:
        part.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text to a file atomically; bytes of file names that are not UTF-8 are written as `\\udc..`."""
    write_bytes(path, text.encode(errors="backslashreplace"))  # in JSON, this is their escape


def write_json(path: Path, document: Any) -> None:
    """Write a JSON document to a file atomically."""
    write_text(path, json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


MAX_JSON_BYTES = 1 << 30
"""Size limit of a JSON file: a summary of 10,000 classes takes 2 MB."""


def read_json(path: Path) -> Any:
    """Read a JSON document.

    Raises:
        FgvcError: it is missing or damaged.
    """
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise FgvcError(f"{path} is damaged: more than {MAX_JSON_BYTES // 2**20} MB of JSON.")
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FgvcError(f"{path}: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise FgvcError(f"{path} is damaged: not a JSON document ({error}).") from error


def read_object(path: Path, remedy: str) -> dict[str, Any]:
    """Read a JSON document that is an object.

    Raises:
        FgvcError: it is missing or damaged; the message ends in `remedy` ("Restore it, or train again.").
    """
    try:
        document = read_json(path)
    except FgvcError as error:
        raise FgvcError(f"{error} {remedy}") from error
    if not isinstance(document, dict):
        raise FgvcError(f"{path} is damaged: not a JSON object. {remedy}")
    return document


def read_as(path: Path, parse: Callable[[dict[str, Any]], Parsed], remedy: str) -> Parsed:
    """Read a JSON object and parse it.

    Raises:
        FgvcError: the file is missing or damaged, or `parse` raises KeyError, TypeError, ValueError or AttributeError;
            the message ends in `remedy`.
    """
    document = read_object(path, remedy)
    try:
        parsed = parse(document)
        if where := mismatch(parsed, type(parsed)):
            raise TypeError(f"{where[1:]} has another type")
        return parsed
    except KeyError as error:
        raise FgvcError(f"{path} is damaged: it has no {error}. {remedy}") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise FgvcError(f"{path} is damaged: {error}. {remedy}") from error


_hints: Callable[[type], dict[str, Any]] = functools.cache(typing.get_type_hints)


def mismatch(value: Any, hint: Any, at: str = "") -> str:
    """Return where a value of JSON types differs from a type, as ".train.loss"; "" if it fits.

    Args:
        value: may hold dataclasses, whose fields are checked.
        hint: a class, `Any`, a union, a `Mapping`, `Sequence` or tuple of them, or a `Literal`.
        at: where the value is, for the answer.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any or isinstance(hint, TypeVar):
        return ""
    if origin in (Union, types.UnionType):
        found = [mismatch(value, each, at) for each in arguments]
        return "" if "" in found else max(found, key=len)
    if origin is Literal:
        return "" if value in arguments else at or "."
    plain = origin or hint
    if plain is float:
        return "" if isinstance(value, int | float) and not isinstance(value, bool) else at or "."
    is_text = isinstance(value, str) and plain is not str
    if is_text or not isinstance(value, plain) or (isinstance(value, bool) and plain is int):
        return at or "."
    if dataclasses.is_dataclass(value):
        hints = _hints(type(value))
        fields = (mismatch(getattr(value, f.name), hints[f.name], f"{at}.{f.name}") for f in dataclasses.fields(value))
        return next(filter(None, fields), "")
    if isinstance(value, Mapping) and len(arguments) == 2:
        return next(filter(None, (mismatch(each, arguments[1], f"{at}.{key}") for key, each in value.items())), "")
    if isinstance(value, list | tuple) and arguments:
        same = arguments[0] if plain is not tuple or arguments[-1] is ... else None
        hints_of = [same] * len(value) if same is not None else list(arguments)
        if len(hints_of) != len(value):
            return at or "."
        pairs = enumerate(zip(value, hints_of, strict=True))
        return next(filter(None, (mismatch(each, of, f"{at}[{index}]") for index, (each, of) in pairs)), "")
    return ""


def append_line(path: Path, document: Any) -> None:
    """Append a JSON line and sync it to disk."""
    try:
        with path.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(json.dumps(document, ensure_ascii=False, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise FgvcError(_cause(path, error)) from error


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _cause(path: Path, error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"No space left to write {path}; free some, or choose another disk with `out`. Saved files are intact."
    return f"Cannot write {path}: {error.strerror or error}"


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file atomically, row by row; None becomes an empty cell.

    Text that a spreadsheet would take for a formula gets an apostrophe before it; `csv_text` removes it.
    """
    with (
        replacing(path) as part,
        part.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows([csv_cell(cell) for cell in row] for row in rows)


FORMULA = re.compile(r"'*[=+@\t\r]")
"""Start of a cell that a spreadsheet takes for a formula, or of one with an apostrophe before it."""


def csv_cell(cell: Any) -> Any:
    """Return a cell with an apostrophe before what a spreadsheet would take for a formula."""
    return f"'{cell}" if isinstance(cell, str) and FORMULA.match(cell) else cell


def csv_text(cell: str) -> str:
    """Return the text of a cell that `write_csv` wrote."""
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell


MAX_NAME = 200
"""Maximum length of a file name in bytes, without a suffix: file systems take 255, temporary suffixes included."""


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """Name each file by its stem, by as many parent folders as necessary, or else by its full name and a number."""
    candidates = [list(_names_of(path)) for path in paths]
    chosen = [0] * len(paths)
    while True:
        names = [options[k] for options, k in zip(candidates, chosen, strict=True)]
        counts = Counter(name.lower() for name in names)  # some file systems ignore case
        twice = [i for i, name in enumerate(names) if counts[name.lower()] > 1 and chosen[i] < len(candidates[i]) - 1]
        if not twice:
            return unique_names(names)
        for i in twice:
            chosen[i] += 1


def _names_of(path: Path) -> Iterator[str]:
    """Yield names for a file, from the shortest to the longest."""
    folders = [part for part in path.absolute().parent.parts if part != path.anchor]
    for count in range(len(folders) + 1):
        above = folders[len(folders) - count :]
        yield "-".join([*above, path.stem])
        if count in (0, len(folders)):
            yield "-".join([*above, path.name])


def unique_names(names: Sequence[str]) -> list[str]:
    """Shorten names to what file systems take, and number duplicates, ignoring case."""
    taken: set[str] = set()
    unique = []
    for name in names:
        short = os.fsencode(name)[:MAX_NAME].decode(errors="ignore")
        short = name if len(os.fsencode(name)) <= MAX_NAME else short
        candidate, count = short, 1
        while candidate.lower() in taken:
            count += 1
            candidate = f"{short}-{count}"
        taken.add(candidate.lower())
        unique.append(candidate)
    return unique


fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows, which refuses to rename a folder with open files, which suffices
    fcntl = None

POLL_SECONDS = 0.002
BUSY = (errno.EWOULDBLOCK, errno.EACCES, errno.EAGAIN)


class Locked(Exception):  # noqa: N818, often expected
    """Another process holds the lock."""


class FileLock:
    """A lock held until `close`, or until this process and all that it forked have ended.

    `close` releases it for forked processes too.

    Args:
        file: to lock; created if missing.
        shared: whether others may hold a shared lock at the same time.
        timeout: seconds to wait for the lock.
        inherited: whether processes that this one forks hold it too; if not, it ends with this process although forked
            ones live on, and does not keep this process itself from locking the file again.

    Raises:
        Locked: another process holds it.
        OSError: the file cannot be opened, or its file system does not support locks.
    """

    def __init__(self, file: Path, shared: bool, timeout: float = 0.0, inherited: bool = True) -> None:
        self._inherited = inherited
        self._handle = os.open(file, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
        deadline = time.monotonic() + timeout
        try:
            while not self._try(shared):
                if time.monotonic() >= deadline:
                    raise Locked(file)
                time.sleep(POLL_SECONDS)
        except BaseException:
            self.close()
            raise

    def _try(self, shared: bool) -> bool:
        if fcntl is None:
            return True
        lock = fcntl.flock if self._inherited else fcntl.lockf
        try:
            lock(self._handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in BUSY:
                return False
            raise
        return True

    def is_of(self, file: Path) -> bool:
        """Return whether the locked file still has this name: it may have been deleted and created again."""
        try:
            return os.path.samestat(os.fstat(self._handle), file.stat())
        except OSError:
            return False

    def close(self) -> None:
        """Release the lock."""
        if self._handle >= 0:
            if fcntl is not None:
                with suppress(OSError):  # a file system without locks
                    fcntl.flock(self._handle, fcntl.LOCK_UN)
            os.close(self._handle)
            self._handle = -1


@contextmanager
def locked(file: Path, timeout: float) -> Iterator[None]:
    """Hold an exclusive lock within the block; raises as `FileLock` does."""
    lock = FileLock(file, shared=False, timeout=timeout)
    try:
        yield
    finally:
        lock.close()
