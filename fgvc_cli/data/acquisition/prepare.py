"""Download, verify, unpack and move into place; complete at every moment."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fgvc_cli.contracts import Download, Provision
from fgvc_cli.data.acquisition.download import PART, UnavailableError, fault_of, fetch
from fgvc_cli.data.acquisition.plan import (
    by_hand_text,
    full_disk_explained,
    plan_lines,
    require_room,
    results_of,
    room_for,
    wanted,
)
from fgvc_cli.data.acquisition.select import ChosenDataset
from fgvc_cli.data.acquisition.unpacking import clear, move_into_place, unpack
from fgvc_cli.data.cache.locks import FileLock, Locked
from fgvc_cli.errors import FgvcError

logger = logging.getLogger(__name__)

FILE = ".preparing"
PAUSE = 0.5
"""Seconds between two looks at whether another process has finished."""


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Wait until no other process prepares this folder, and keep others waiting meanwhile.

    The system itself lets go of the lock of a process that is killed. A folder that is empty at the end is removed.

    Raises:
        OSError: the folder cannot be made or written.
    """
    file = folder / FILE
    lock = _acquired(file)
    try:
        yield
    finally:
        file.unlink(missing_ok=True)
        if lock is not None:
            lock.close()
        with suppress(OSError):  # as it should be: there is something in it
            folder.rmdir()


def _acquired(file: Path) -> FileLock | None:
    """Return the lock; None where the file system has none: two at once spoil each other's download at worst."""
    said = False
    while True:
        file.parent.mkdir(parents=True, exist_ok=True)  # who had the lock may have left nothing behind
        try:
            lock = FileLock(file, shared=False)
            if lock.is_of(file):  # and not of the one that its last owner has deleted
                return lock
            lock.close()
            continue
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.filename is None:
                return None
            raise
        except Locked:
            pass
        if not said:
            logger.info(f"{file.parent}: another process is preparing this dataset; waiting for it")
            said = True
        time.sleep(PAUSE)


UNPACKING = ".unpacking"
"""Folder, in the dataset's, that archives are unpacked in before their contents are moved into place."""


def obtain(chosen: ChosenDataset, provision: Provision) -> None:
    """Bring the files of a dataset here, by its links; what is here already is left as it is.

    Whatever ends this, in whichever way: each result of a download is there whole or not at all, and another call goes
    on from there. Of two processes one waits until the other is done.

    Args:
        chosen: the dataset.
        provision: what it needs, and the links.

    Raises:
        FgvcError: not all could be had by links (it says what a person does), a connection broke off again and again,
            there is no room, or a link of a person's leads nowhere.
        OSError: the folder cannot be written.
    """
    if not provision.missing():
        return
    if not wanted(provision):
        raise FgvcError(by_hand_text(chosen, provision, []))
    _refuse_dead_links(provision)
    with full_disk_explained(provision.folder), alone(provision.folder):
        clear(provision.folder / UNPACKING)  # left there by a process that was killed
        downloads = wanted(provision)
        if not downloads:
            return
        for line in plan_lines(chosen.title, provision, downloads):
            logger.info(line)
        require_room(provision.folder, room_for(downloads) - _already_here(downloads, provision.folder))
        causes = []
        for download in downloads:
            try:
                _put_in_place(download, provision)
            except UnavailableError as error:
                causes.append(str(error))
        if provision.missing():
            raise FgvcError(by_hand_text(chosen, provision, causes))
        for cause in causes:
            logger.warning(f"not downloaded, and not needed: {cause}")


def _refuse_dead_links(provision: Provision) -> None:
    """Refuse a link to a folder or file that is not there, in whose place nothing can be put: a disk is not mounted."""
    folder = provision.folder
    places = {place for name in provision.missing() for place in (folder / name, *(folder / name).parents)}
    dead = next((place for place in sorted(places) if place.is_symlink() and not place.exists()), None)
    if dead is not None:
        raise FgvcError(f"{dead}: is a link to {dead.readlink()}, which is not there. Mend the link or take it away.")


def _already_here(downloads: list[Download], folder: Path) -> int:
    files = [folder / download.file for download in downloads]
    there = [path for file in files for path in (file, _part(file)) if path.is_file()]
    return sum(path.stat().st_size for path in there)


def _part(file: Path) -> Path:
    return file.with_name(file.name + PART)


def _put_in_place(download: Download, provision: Provision) -> None:
    file = provision.folder / download.file
    if download.unpack is None:
        _downloaded(download, file).replace(file)
        return
    if _is_a_persons_own(download, file):
        _unpack(file, download, provision)
        logger.info(f"{download.file}: unpacked; your copy of it is not needed any more")
        return
    part = _downloaded(download, file)
    _unpack(part, download, provision)
    part.unlink()


def _is_a_persons_own(download: Download, file: Path) -> bool:
    """Say whether a person put the published archive there; ours has another name until it is unpacked and gone."""
    if not file.is_file():
        return False
    fault = fault_of(file, download.checksum, download.size)
    if fault:
        logger.warning(f"{file} is not what was published: {fault}. It is left alone, and downloaded beside it.")
        return False
    logger.info(f"{download.file}: it is here already")
    return True


def _downloaded(download: Download, file: Path) -> Path:
    """Download a file and verify it; one that is not what was published is deleted."""
    part = _part(file)
    part.parent.mkdir(parents=True, exist_ok=True)
    if not download.checksum:
        logger.info(f"{download.file}: no checksum is published; its size and form are all that can be verified")
    fetch(download.url, part, download.size)
    fault = fault_of(part, download.checksum, download.size)
    if fault:
        part.unlink()
        raise UnavailableError(f"{download.url}: not the file that was published, and so deleted: {fault}")
    return part


def _unpack(archive: Path, download: Download, provision: Provision) -> None:
    unpacked = provision.folder / UNPACKING
    try:
        unpack(archive, unpacked / (download.unpack or ""), download.file, download.strip)
        results = results_of(download, provision)
        lacking = [name for name in results if not any((at / name).exists() for at in (unpacked, provision.folder))]
        if download.gives and lacking:
            raise UnavailableError(f"{download.file}: it lacks {', '.join(lacking)}")
        move_into_place(unpacked, provision.folder, frozenset(provision.folder / name for name in results))
    finally:
        clear(unpacked)
