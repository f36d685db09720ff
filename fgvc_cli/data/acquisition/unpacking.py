"""Unpack archives without writing outside their folder."""

from __future__ import annotations

import lzma
import re
import shutil
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from fgvc_cli.data.acquisition.download import UnavailableError
from fgvc_cli.data.acquisition.plan import require_room
from fgvc_cli.errors import FgvcError
from fgvc_cli.progress import progress

DAMAGED = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError)
"""What damaged archives, and kinds of them that cannot be read, make their readers raise."""


def unpack(archive: Path, into: Path, title: str, strip: int = 0) -> None:
    """Unpack a tar (plain, gz, bz2 or xz) or zip archive.

    Args:
        archive: the file; what it is goes by what it holds.
        into: a folder; made if need be.
        title: what to call the archive.
        strip: leading folders of its names to leave off; what has no more than these is left out.

    Raises:
        UnavailableError: it is no such archive, is damaged, or has a member that would land outside of the folder.
        FgvcError: there is no room.
        OSError: something cannot be written.
    """
    into.mkdir(parents=True, exist_ok=True)
    try:
        if zipfile.is_zipfile(archive):
            _unpack_zip(archive, into, title, strip)
        else:
            _unpack_tar(archive, into, title, strip)
    except tarfile.FilterError as error:
        raise UnavailableError(f"{title}: refused, for a member would land outside of its folder: {error}") from error
    except DAMAGED as error:
        cause = " ".join(str(error).split()) or type(error).__name__
        raise UnavailableError(f"{title}: no archive that can be unpacked: {cause}") from error
    except KeyError as error:  # how tarfile says that what a hard link names is not in the archive
        raise UnavailableError(f"{title}: no archive that can be unpacked: {error.args[0]}") from error
    except RuntimeError as error:  # how zipfile says that a password is needed
        raise UnavailableError(f"{title}: {error}") from error
    except OSError as error:
        if error.errno is None:  # how gzip and bz2 say that what they read is damaged
            raise UnavailableError(f"{title}: no archive that can be unpacked: {error}") from error
        raise


def _unpack_tar(archive: Path, into: Path, title: str, strip: int) -> None:
    if not hasattr(tarfile, "data_filter"):
        raise FgvcError("Unpacking safely needs Python 3.11.4 or newer.")
    with tarfile.open(archive) as tar, progress(f"unpacking {title}", None, "files") as bar:
        while (member := tar.next()) is not None:
            stripped = _stripped_member(member, strip)
            if stripped is not None:
                tar.extract(stripped, into, filter="data")
            tar.members.clear()  # type: ignore[attr-defined]  # else a record of each of millions of files is kept
            bar.advance()


def _stripped_member(member: tarfile.TarInfo, strip: int) -> tarfile.TarInfo | None:
    if not strip:
        return member
    name = _stripped(member.name, strip)
    # A hard link names another member, a symbolic link a path from where it is.
    target = _stripped(member.linkname, strip) if member.islnk() else member.linkname
    return member.replace(name=name, linkname=target, deep=False) if name else None


def _stripped(name: str, strip: int) -> str:
    """Leave off the first folders of a name; empty if there is nothing more."""
    return "/".join(PurePosixPath(name.lstrip("/")).parts[strip:])


def _unpack_zip(archive: Path, into: Path, title: str, strip: int) -> None:
    with zipfile.ZipFile(archive) as packed:
        members = packed.infolist()
        for member in members:
            if _escapes(member.filename):
                raise UnavailableError(
                    f"{title}: refused, for a member would land outside of its folder: {member.filename}"
                )
        require_room(into, sum(member.file_size for member in members))
        with progress(f"unpacking {title}", len(members), "files") as bar:
            for member in members:
                if not member.is_dir() and (name := _stripped(member.filename, strip)):
                    member.filename = name
                    packed.extract(member, into)
                bar.advance()


def _escapes(name: str) -> bool:
    path = PurePosixPath(name.replace("\\", "/"))
    return path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", name) is not None


def move_into_place(unpacked: Path, folder: Path, results: frozenset[Path]) -> None:
    """Move what lies in one folder into another, each result in one step; what is there already stays as it is.

    Args:
        unpacked: where it lies, on the same disk.
        folder: where it belongs.
        results: what must be there whole or not at all; nothing is moved into one that is there.

    Raises:
        OSError: it cannot be moved.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for entry in sorted(unpacked.iterdir()):
        target = folder / entry.name
        if not target.exists():
            entry.rename(target)
        elif target.is_dir() and entry.is_dir() and target not in results:
            move_into_place(entry, target, results)


def clear(folder: Path) -> None:
    """Delete a folder of unpacked files that is of no more use, if it is there."""
    shutil.rmtree(folder, ignore_errors=True)
