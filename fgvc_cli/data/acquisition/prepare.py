"""Download, verify and unpack a dataset; resumable at any point."""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from fgvc_cli.contracts import Download, Provision
from fgvc_cli.data.acquisition.download import PART, UnavailableError, fetch, mismatch
from fgvc_cli.data.acquisition.plan import (
    manual_lines,
    pending_downloads,
    plan_lines,
    require_disk_space,
    required_disk_space,
    results_of,
)
from fgvc_cli.data.acquisition.unpacking import delete, move_into_place, unpack
from fgvc_cli.errors import FgvcError
from fgvc_cli.files import FileLock, Locked

logger = logging.getLogger(__name__)

LOCK = ".preparing"
POLL_SECONDS = 0.5
"""Seconds between two attempts to get the lock of another process."""

UNPACKING = ".unpacking"
"""Folder within the dataset's in which archives are unpacked before their contents are moved into place."""


class ManualDownloadError(FgvcError):
    """Files of a dataset cannot be downloaded; the message has instructions for obtaining them."""

    def __init__(self, title: str, provision: Provision, causes: Sequence[str]) -> None:
        first = f"{title} could not be downloaded" + (":" if causes else ": it has no download link")
        lines = [first, *(f"  {cause}" for cause in causes), *manual_lines(provision, archives=True)]
        super().__init__("\n".join(lines))


def prepare_dataset(title: str, provision: Provision) -> None:
    """Download the missing files of a dataset; existing ones are left unchanged.

    However this ends, every result of a download is either complete or absent, and the next call resumes. A second
    process waits for the first.

    Raises:
        ManualDownloadError: not all files can be downloaded.
        FgvcError: the connection keeps breaking, there is no disk space, or a link in the folder is broken.
        OSError: the folder cannot be written.
    """
    if not provision.missing():
        return
    if not pending_downloads(provision):
        raise ManualDownloadError(title, provision, [])
    _refuse_broken_links(provision)
    with _full_disk_explained(provision.folder), exclusive(provision.folder):
        delete(provision.folder / UNPACKING)  # left by a killed process
        downloads = pending_downloads(provision)
        if not downloads:
            return
        for line in plan_lines(title, provision, downloads):
            logger.info(line)
        files = [path for d in downloads for path in (provision.folder / d.file, _part(provision.folder / d.file))]
        present = sum(path.stat().st_size for path in files if path.is_file())
        require_disk_space(provision.folder, required_disk_space(downloads) - present)
        causes = []
        for download in downloads:
            try:
                _put_in_place(download, provision)
            except UnavailableError as error:
                causes.append(str(error))
        if provision.missing():
            raise ManualDownloadError(title, provision, causes)
        for cause in causes:
            logger.warning(f"not downloaded, and not needed: {cause}")


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold the lock of a dataset's folder, waiting for another process that holds it.

    The folder is removed at the end if it is empty.

    Raises:
        OSError: the folder cannot be created or written.
    """
    file = folder / LOCK
    lock = _lock(file)
    try:
        yield
    finally:
        file.unlink(missing_ok=True)
        if lock is not None:
            lock.close()
        with suppress(OSError):  # it is not empty
            folder.rmdir()


def _lock(file: Path) -> FileLock | None:
    """Return the lock; None on a file system without locks, where concurrent processes may corrupt a download."""
    waiting = False
    while True:
        file.parent.mkdir(parents=True, exist_ok=True)  # the previous owner may have removed it
        try:
            lock = FileLock(file, shared=False)
            if lock.is_of(file):  # not of a file that its previous owner has deleted
                return lock
            lock.close()
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.filename is None:
                return None
            raise
        except Locked:
            if not waiting:
                logger.info(f"{file.parent}: waiting for another process that prepares this dataset")
                waiting = True
            time.sleep(POLL_SECONDS)


@contextmanager
def _full_disk_explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise FgvcError(
            f"{folder}: no space left on the disk. Free some space, or choose another disk with `data_root`; the "
            "download is kept and resumes from there"
        ) from error


def _refuse_broken_links(provision: Provision) -> None:
    """Refuse a symbolic link without a target, such as to a disk that is not mounted: nothing can be created there."""
    folder = provision.folder
    places = {place for name in provision.missing() for place in (folder / name, *(folder / name).parents)}
    broken = next((place for place in sorted(places) if place.is_symlink() and not place.exists()), None)
    if broken is not None:
        raise FgvcError(f"{broken} is a link to {broken.readlink()}, which does not exist. Fix or remove the link")


def _part(file: Path) -> Path:
    return file.with_name(file.name + PART)


def _put_in_place(download: Download, provision: Provision) -> None:
    file = provision.folder / download.file
    if download.unpack is None:
        _download(download, file).replace(file)
    elif _is_valid_archive(download, file):
        _unpack(file, download, provision)
        logger.info(f"{download.file}: unpacked; the archive can be deleted")
    else:
        part = _download(download, file)
        _unpack(part, download, provision)
        part.unlink()


def _is_valid_archive(download: Download, file: Path) -> bool:
    """Return whether the user put the published archive into the folder; downloads have another name until unpacked."""
    if not file.is_file():
        return False
    fault = mismatch(file, download.checksum, download.size)
    if fault:
        logger.warning(f"{file} is not the published file ({fault}); downloading it to {_part(file).name}")
        return False
    logger.info(f"{download.file}: found")
    return True


def _download(download: Download, file: Path) -> Path:
    """Download a file and verify it; delete it if it is not the published one."""
    part = _part(file)
    part.parent.mkdir(parents=True, exist_ok=True)
    if not download.checksum:
        logger.info(f"{download.file}: no published checksum; only size and format can be verified")
    fetch(download.url, part, download.size)
    fault = mismatch(part, download.checksum, download.size)
    if fault:
        part.unlink()
        raise UnavailableError(f"{download.url}: deleted, because it is not the published file: {fault}")
    return part


def _unpack(archive: Path, download: Download, provision: Provision) -> None:
    unpacked = provision.folder / UNPACKING
    try:
        unpack(archive, unpacked / (download.unpack or ""), download.file, download.strip)
        results = results_of(download, provision)
        missing = [name for name in results if not any((at / name).exists() for at in (unpacked, provision.folder))]
        if download.gives and missing:
            raise UnavailableError(f"{download.file} does not contain {', '.join(missing)}")
        move_into_place(unpacked, provision.folder, frozenset(provision.folder / name for name in results))
    finally:
        delete(unpacked)
