"""The files of `fgvc explain IMAGES`: which true class an image's place tells, and where its picture goes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from fgvc_cli.errors import UsageError
from fgvc_cli.runs.files import check_writable
from fgvc_cli.runs.folder import MODEL_FILE

PICTURE = ".explain.png"
"""How the names of pictures end."""
SAMPLES = "samples"
LONGEST_NAME = 200
"""Bytes of a picture's name without its ending: file systems take 255 with it, and with what is added while writing."""


def true_class(path: Path, class_names: Collection[str]) -> str | None:
    """Return the class that an image's place names, or None.

    That is the innermost folder that has the name of a class: of those that the path names, and the one that the file
    is in. Samples that training left in a run carry it in their own names.
    """
    folder = path.absolute().parent
    for name in (folder.name, *reversed(path.parent.parts)):
        if name in class_names:
            return name
    stem, _, number = path.stem.rpartition("-")
    is_sample = folder.name == SAMPLES and (folder.parent / MODEL_FILE).is_file()
    return stem if is_sample and number.isdigit() and stem in class_names else None


def without_pictures(found: Sequence[Path], named: Collection[Path]) -> list[Path]:
    """Leave out the pictures that this command made, unless they were named one by one."""
    return [path for path in found if path in named or not path.name.lower().endswith(PICTURE)]


def picture_files(images: Sequence[Path], out: Path | None, force: bool) -> list[Path]:
    """Return where the picture of each image goes: `NAME.explain.png`, in the current folder or in `out`.

    Images of one name are told apart by the folders that they are in.

    Raises:
        UsageError: a picture is there already, without `force`; or `out` is a file.
        FgvcError: `out` cannot be made or written to.
    """
    if out is not None and out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file: name a folder.")
    pictures = [(out or Path()) / f"{name}{PICTURE}" for name in _different_names(images)]
    there = [picture for picture in pictures if picture.exists()]
    if there and not force:
        more = f" (and {len(there) - 1} more)" if len(there) > 1 else ""
        raise UsageError(f"{there[0]} exists{more}: replace it with --force, or choose another folder with --out.")
    check_writable(out or Path(), "Pictures")
    return pictures


def _different_names(images: Sequence[Path]) -> list[str]:
    """Name each image by its stem, by as many folders above it as it takes, or else by its whole name and a number."""
    candidates = [list(_candidates(path)) for path in images]
    chosen = [0] * len(images)
    while True:
        names = [options[k] for options, k in zip(candidates, chosen, strict=True)]
        counts = Counter(name.lower() for name in names)  # some file systems do not tell upper from lower case
        twice = [i for i, name in enumerate(names) if counts[name.lower()] > 1 and chosen[i] < len(candidates[i]) - 1]
        if not twice:
            return told_apart(names)
        for i in twice:
            chosen[i] += 1


def _candidates(path: Path) -> Iterator[str]:
    """Give names for an image, from the shortest to the longest."""
    folders = [part for part in path.absolute().parent.parts if part != path.anchor]
    for count in range(len(folders) + 1):
        above = folders[len(folders) - count :]
        yield "-".join([*above, path.stem])
        if count in (0, len(folders)):
            yield "-".join([*above, path.name])


def told_apart(names: Sequence[str]) -> list[str]:
    """Number names that come again, upper and lower case being one, after cutting off what no file system takes."""
    taken: set[str] = set()
    different = []
    for name in names:
        candidate, count = _cut(name), 1
        while candidate.lower() in taken:
            count += 1
            candidate = f"{_cut(name)}-{count}"
        taken.add(candidate.lower())
        different.append(candidate)
    return different


def _cut(name: str) -> str:
    return os.fsencode(name)[:LONGEST_NAME].decode(errors="ignore") if len(os.fsencode(name)) > LONGEST_NAME else name
