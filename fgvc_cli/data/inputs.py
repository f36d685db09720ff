"""Find the images that files and folders name, and say which files are no images."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from fgvc_cli.contracts.dataset import scan_folder
from fgvc_cli.errors import FgvcError

logger = logging.getLogger(__name__)

CAMERA_RAW = frozenset(
    {".3fr", ".arw", ".cr2", ".cr3", ".dng", ".erf", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".srw"}
)
"""Suffixes of camera raw files, in lower case."""


def ignored_text(ignored: Mapping[str, int]) -> str:
    """Return what the files are that are not read as images: "3 .cr2, 2 without suffix"."""
    ordered = sorted(ignored.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in ordered)


def note_ignored(where: str, ignored: Mapping[str, int]) -> None:
    """Log how many files are not read as images; a warning if some are camera raw files."""
    if not ignored:
        return
    number = sum(ignored.values())
    text = f"{where}: {number} file{'' if number == 1 else 's'} not read as images: {ignored_text(ignored)}"
    if CAMERA_RAW & ignored.keys():
        logger.warning(f"{text} (convert camera raw files to JPEG, PNG or TIFF)")
    else:
        logger.info(f"{text} (give images a suffix such as .jpg)" if "" in ignored else text)


def find_inputs(paths: Sequence[Path]) -> tuple[list[Path], dict[str, str]]:
    """List the images that files and folders name, without duplicates; folders are searched recursively.

    A file counts as an image whatever its suffix.

    Returns:
        The image files, and the reason for each path that does not exist or has no image.

    Raises:
        FgvcError: there is no image at all.
    """
    images: dict[Path, None] = {}
    failures: dict[str, str] = {}
    ignored: Counter[str] = Counter()
    for path in paths:
        if not path.exists():
            failures[str(path)] = "no such file or folder"
            continue
        try:
            folder = scan_folder(path) if path.is_dir() else None
            found = [path] if folder is None else folder.all_images()
            ignored.update({} if folder is None else folder.total_ignored())
        except FgvcError as error:
            failures[str(path)] = str(error)
            continue
        if not found:
            failures[str(path)] = "no image in this folder"
        images.update(dict.fromkeys(found))
    note_ignored("folders to search", ignored)
    if not images:
        raise FgvcError("no images: " + "; ".join(f"{path}: {reason}" for path, reason in failures.items()))
    return list(images), failures
