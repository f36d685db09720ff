"""Plan the downloads of a dataset: pending files, their sizes, and instructions for manual downloads."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from fgvc_cli.contracts import Download, Provision
from fgvc_cli.errors import FgvcError
from fgvc_cli.formatting import bytes_text, counted


def pending_downloads(provision: Provision) -> list[Download]:
    """Return the downloads whose results are incomplete; none if all needed files exist."""
    if not provision.missing():
        return []
    return [
        d for d in provision.downloads if not all((provision.folder / r).exists() for r in results_of(d, provision))
    ]


def results_of(download: Download, provision: Provision) -> tuple[str, ...]:
    """Return the files and folders that a download provides; an archive without `gives` provides all needed files."""
    if download.unpack is not None and not download.gives:
        return provision.needed
    return download.results


def amount_text(downloads: Sequence[Download]) -> str:
    """Format number and size of downloads: "2 files, 345 MB", "3 files, at least 1.2 GB", "1 file of unknown size"."""
    files = counted(len(downloads), "file")
    size = sum(download.bytes for download in downloads)
    if not size:
        return f"{files} of unknown size"
    if all(download.size for download in downloads):
        return f"{files}, {bytes_text(size)}"
    return f"{files}, {'about' if any(download.about for download in downloads) else 'at least'} {bytes_text(size)}"


def size_text(download: Download) -> str:
    """Format the size of a download: "345 MB", "~224 GB" if approximate, "?" if unknown."""
    return f"{'' if download.size else '~'}{bytes_text(download.bytes)}" if download.bytes else "?"


def host_of(download: Download) -> str:
    """Return the host of a download."""
    return urlsplit(download.url).hostname or "no link"


def plan_lines(name: str, provision: Provision, downloads: Sequence[Download]) -> Iterator[str]:
    """Yield lines with the files to download, their sizes and hosts, the target folder and the license."""
    yield f"{name}: downloading {amount_text(downloads)} to {provision.folder}"
    width = max(len(download.file) for download in downloads)
    for download in downloads:
        yield f"  {download.file:<{width}}  {size_text(download):>7}  from {host_of(download)}"
    if provision.license:
        yield f"license: {provision.license}"


def manual_lines(provision: Provision, archives: bool = False) -> list[str]:
    """Return instructions for obtaining a dataset by hand; `archives`: list those to unpack from the folder."""
    lines = ["by hand:"]
    lines += [f"  {line}" for line in (provision.by_hand.strip() or "see the homepage").splitlines()]
    if provision.homepage and provision.homepage not in provision.by_hand:
        lines.append(f"homepage: {provision.homepage}")
    missing = provision.missing()
    more = f" and {len(missing) - 20} more" if len(missing) > 20 else ""
    lines.append(f"still missing in {provision.folder}: {', '.join(missing[:20])}{more}")
    found = [download for download in pending_downloads(provision) if download.unpack is not None] if archives else []
    if found:
        lines.append("Archives in that folder are verified and unpacked by the next attempt:")
    for archive in found:
        facts = [bytes_text(archive.size) if archive.size else "", archive.checksum]
        known = ", ".join(fact for fact in facts if fact)
        lines.append(f"  {archive.file}{f' ({known})' if known else ''}")
    return lines


def require_disk_space(folder: Path, size: int) -> None:
    """Raise `FgvcError` if `size` bytes do not fit on the disk of a folder, which need not exist."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if size > free:
        raise FgvcError(
            f"{folder}: about {bytes_text(size)} are needed and {bytes_text(free)} are free. Free some space, or "
            "choose another disk with `data_root`"
        )


def required_disk_space(downloads: Sequence[Download]) -> int:
    """Return the peak of bytes on disk, as far as sizes are known.

    An archive counts twice until it is unpacked and deleted, because photographs hardly compress.
    """
    done = peak = 0
    for download in downloads:
        peak = max(peak, done + download.bytes * (1 if download.unpack is None else 2))
        done += download.bytes
    return peak
