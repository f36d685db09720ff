"""Unpack archives without writing outside of their folder."""

from __future__ import annotations

import gzip
import io
import lzma
import re
import shutil
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from fgvc_cli.data.acquisition.download import UnavailableError
from fgvc_cli.data.acquisition.plan import require_disk_space
from fgvc_cli.errors import FgvcError
from fgvc_cli.progress import progress

DAMAGED = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError)
"""Raised by the readers for damaged and unsupported archives."""

ESCAPES = "refused, because a member would be written outside of its folder"


def unpack(archive: Path, into: Path, title: str, strip: int = 0) -> None:
    """Unpack a tar (plain, gz, bz2 or xz) or zip archive; the format is detected from the content.

    Args:
        archive: the file.
        into: target folder; created if missing.
        title: name of the archive in messages.
        strip: number of leading folders to strip from the members' names; members without more are skipped.

    Raises:
        UnavailableError: it is not such an archive, is damaged, or has a member outside of the folder.
        FgvcError: there is no disk space.
        OSError: a file cannot be written.
    """
    into.mkdir(parents=True, exist_ok=True)
    try:
        if zipfile.is_zipfile(archive):
            _unpack_zip(archive, into, title, strip)
        else:
            _unpack_tar(archive, into, title, strip)
    except getattr(tarfile, "FilterError", ()) as error:  # absent before Python 3.11.4
        raise UnavailableError(f"{title}: {ESCAPES}: {error}") from error
    except DAMAGED as error:
        raise _damaged(title, error) from error
    except KeyError as error:  # tarfile: the target of a hard link is not in the archive
        raise _damaged(title, error.args[0]) from error
    except RuntimeError as error:  # zipfile: a password is required
        raise UnavailableError(f"{title}: {error}") from error
    except OSError as error:
        if error.errno is None:  # gzip and bz2: damaged
            raise _damaged(title, error) from error
        raise


def _damaged(title: str, error: object) -> UnavailableError:
    cause = " ".join(str(error).split()) or type(error).__name__
    return UnavailableError(f"{title}: not a valid archive: {cause}")


def _unpack_tar(archive: Path, into: Path, title: str, strip: int) -> None:
    if not hasattr(tarfile, "data_filter"):
        raise FgvcError("Unpacking safely requires Python 3.11.4 or newer")
    with tarfile.open(archive) as tar, progress(f"unpacking {title}", None, "files") as bar:
        while (member := tar.next()) is not None:
            if strip:
                # The target of a hard link is another member's name, that of a symbolic link a relative path.
                target = _stripped(member.linkname, strip) if member.islnk() else member.linkname
                member = member.replace(name=_stripped(member.name, strip), linkname=target, deep=False)
            if member.name:
                tar.extract(member, into, filter="data")
            tar.members.clear()  # type: ignore[attr-defined]  # otherwise millions of records stay in memory
            bar.advance()
        _check_end(tar, title)


def _check_end(tar: tarfile.TarFile, title: str) -> None:
    """Read an archive to its end, where its checksum is; tarfile takes a damaged header for the end of the archive.

    Raises:
        UnavailableError: a plain archive does not end in zeros.
        OSError, EOFError, zlib.error, lzma.LZMAError: the checksum does not match.
    """
    file = tar.fileobj
    assert file is not None
    if isinstance(file, io.BufferedReader):
        file.seek(tar.offset)
        if any(file.read(tarfile.BLOCKSIZE)):
            raise _damaged(title, "a header in it is damaged")
    try:
        while file.read(1 << 20):
            pass
    except gzip.BadGzipFile as error:
        if "Not a gzipped file" not in str(error):  # that is other content behind the archive, which gzip ignores
            raise


def _stripped(name: str, strip: int) -> str:
    """Strip the leading folders of a name; empty if nothing is left."""
    return "/".join(PurePosixPath(name.lstrip("/")).parts[strip:])


def _unpack_zip(archive: Path, into: Path, title: str, strip: int) -> None:
    with zipfile.ZipFile(archive) as packed:
        members = packed.infolist()
        for member in members:
            if _escapes(member.filename):
                raise UnavailableError(f"{title}: {ESCAPES}: {member.filename}")
        require_disk_space(into, sum(member.file_size for member in members))
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
    """Move the content of a folder to another on the same disk, each result atomically; existing files are kept.

    Raises:
        OSError: a file cannot be moved.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for entry in sorted(unpacked.iterdir()):
        target = folder / entry.name
        if not target.exists():
            entry.rename(target)
        elif target.is_dir() and entry.is_dir() and target not in results:
            move_into_place(entry, target, results)


def delete(folder: Path) -> None:
    """Delete a folder if it exists."""
    shutil.rmtree(folder, ignore_errors=True)
