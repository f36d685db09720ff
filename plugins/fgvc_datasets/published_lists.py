"""Reading the text files that a dataset is published with, and saying where they are not as published."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from fgvc_cli.contracts import DatasetRequest
from fgvc_cli.errors import FgvcError
from fgvc_datasets.named import OFFICIAL

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
