"""What to download for a dataset, and how much disk space it takes."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from fgvc_cli.contracts import Download, Provision
from fgvc_cli.data.acquisition.select import ChosenDataset
from fgvc_cli.errors import FgvcError
from fgvc_cli.formatting import bytes_text


def wanted(provision: Provision) -> list[Download]:
    """Return the downloads whose results are not all there; none if nothing that is needed is missing."""
    if not provision.missing():
        return []
    return [
        d for d in provision.downloads if not all((provision.folder / r).exists() for r in results_of(d, provision))
    ]


def results_of(download: Download, provision: Provision) -> tuple[str, ...]:
    """Return what there is once a download is in place; an archive that does not say gives what is needed."""
    if download.unpack is not None and not download.gives:
        return provision.needed
    return download.results


def total_size(downloads: Sequence[Download]) -> int:
    """Return the bytes of some downloads, as far as they are known."""
    return sum(download.bytes for download in downloads)


def amount_text(downloads: Sequence[Download]) -> str:
    """Say how much some downloads are: "2 files, 345 MB", "3 files, at least 1.2 GB", "1 file of unknown size".

    Where a size is only roughly known, it says "about".
    """
    files = f"{len(downloads)} file{'' if len(downloads) == 1 else 's'}"
    size = total_size(downloads)
    if not size:
        return f"{files} of unknown size"
    if all(download.size for download in downloads):
        return f"{files}, {bytes_text(size)}"
    return f"{files}, {'about' if any(download.about for download in downloads) else 'at least'} {bytes_text(size)}"


def size_text(download: Download) -> str:
    """Say how big a download is: "345 MB", "~224 GB" if only roughly known, "?" if not at all."""
    return f"{'' if download.size else '~'}{bytes_text(download.bytes)}" if download.bytes else "?"


def host_of(download: Download) -> str:
    """Return the host that a download is from."""
    return urlsplit(download.url).hostname or "no link"


def plan_lines(name: str, provision: Provision, downloads: Sequence[Download]) -> Iterator[str]:
    """Say what will be downloaded, from where and to where, and what one may do with it."""
    yield f"{name}: downloading {amount_text(downloads)}, into {provision.folder}"
    width = max(len(download.file) for download in downloads)
    for download in downloads:
        yield f"  {download.file:<{width}}  {size_text(download):>7}  from {host_of(download)}"
    if provision.license:
        yield f"license: {provision.license}"


def by_hand_text(chosen: ChosenDataset, provision: Provision, causes: Sequence[str]) -> str:
    """Say what could not be downloaded, and exactly what a person gets from where and puts where.

    Args:
        chosen: the dataset.
        provision: what it needs.
        causes: why each download failed.
    """
    lines = [f"{chosen.title} could not be downloaded" + (":" if causes else ": there is no link to it.")]
    lines += [f"  {cause}" for cause in causes]
    lines += by_hand_lines(provision)
    archives = [download for download in wanted(provision) if download.unpack is not None]
    if archives:
        lines.append("An archive that lies in that folder is verified and unpacked by the command below:")
        lines += [f"  {archive.file}{_identity(archive)}" for archive in archives]
    return "\n".join([*lines, f"then: fgvc data prepare {chosen.arguments()}"])


def by_hand_lines(provision: Provision) -> list[str]:
    """Say where a person gets a dataset, and what is still missing in which folder."""
    lines = ["by hand:"]
    lines += [f"  {line}" for line in (provision.by_hand.strip() or "see the homepage").splitlines()]
    if provision.homepage and provision.homepage not in provision.by_hand:
        lines.append(f"homepage: {provision.homepage}")
    missing = provision.missing()
    more = f" and {len(missing) - 20} more" if len(missing) > 20 else ""
    return [*lines, f"so that there is, in {provision.folder}: {', '.join(missing[:20])}{more}"]


def _identity(download: Download) -> str:
    facts = [bytes_text(download.size) if download.size else "", download.checksum]
    known = ", ".join(fact for fact in facts if fact)
    return f" ({known})" if known else ""


def require_room(folder: Path, size: int) -> None:
    """Raise `FgvcError` if so many bytes more do not fit on the disk that a folder is, or would be, on."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free
    if size > free:
        raise FgvcError(
            f"{folder}: about {bytes_text(size)} are needed and {bytes_text(free)} are free. Make room, or name "
            "another place with --data-root."
        )


def room_for(downloads: Sequence[Download]) -> int:
    """Return the bytes that are needed at most at a time, as far as sizes are known.

    An archive counts twice, for photographs do not get smaller by packing, until it is unpacked and removed.
    """
    kept = most = 0
    for download in downloads:
        most = max(most, kept + download.bytes * (1 if download.unpack is None else 2))
        kept += download.bytes
    return most


@contextmanager
def full_disk_explained(folder: Path) -> Iterator[None]:
    """Turn a full disk into words that say what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise FgvcError(
            f"{folder}: no space left on the disk. Make room, or name another place with --data-root; what was "
            "downloaded is kept, and the same command goes on."
        ) from error
