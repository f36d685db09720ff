"""Download one file over HTTP, resuming an earlier attempt, and verify its checksum."""

from __future__ import annotations

import hashlib
import http.client
import logging
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fgvc_cli._version import __version__
from fgvc_cli.data.acquisition.plan import require_disk_space
from fgvc_cli.errors import FgvcError
from fgvc_cli.formatting import bytes_text
from fgvc_cli.progress import progress

logger = logging.getLogger(__name__)

PART = ".part"
"""Suffix of a file that is not completely downloaded and verified."""

ALGORITHMS = ("md5", "sha256")
BLOCK = 1 << 18
"""Bytes read at a time."""

ATTEMPTS = 5
"""Maximum number of consecutive attempts that receive less than `MIN_PROGRESS`."""

MIN_PROGRESS = 1 << 16
"""Bytes received from which an attempt counts as progress."""

WAITS = (1.0, 2.0, 4.0, 8.0)
"""Seconds before the second, third, ... consecutive attempt."""

TIMEOUT = 30.0
"""Seconds without a byte after which a connection counts as broken."""

TEMPORARY = (408, 425, 429, 500, 502, 503, 504)
"""HTTP status codes after which a download is retried."""


class UnavailableError(FgvcError):
    """A file cannot be downloaded from its link, or the link leads to something else."""


class _ConnectionBrokenError(Exception):
    """The connection ended early; another attempt may succeed."""


def mismatch(path: Path, checksum: str, size: int) -> str:
    """Return how a file differs from the published one; empty if it does not, as far as that can be verified.

    Args:
        path: the file.
        checksum: "md5:..." or "sha256:..."; empty if none is published. If given, it alone is compared.
        size: bytes; 0 if not known.

    Raises:
        FgvcError: the checksum has another form.
    """
    actual = path.stat().st_size
    differs = f"{bytes_text(actual)} ({actual} bytes), published: {size} bytes"
    if not checksum:
        return differs if size and actual != size else ""
    algorithm, colon, expected = checksum.partition(":")
    if algorithm not in ALGORITHMS or not colon:
        raise FgvcError(f"{path.name}: the checksum '{checksum}' does not have the form md5:... or sha256:...")
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with path.open("rb") as file, _bytes_progress(f"verifying {path.name.removesuffix(PART)}", actual) as advance:
        while block := file.read(BLOCK):
            digest.update(block)
            advance(len(block))
    found = digest.hexdigest()
    if found == expected.lower():
        return ""
    return f"its {algorithm} is {found}, published: {expected}" + (f"; {differs}" if actual != size > 0 else "")


def fetch(url: str, part: Path, size: int) -> None:
    """Download a file, or the rest of it.

    A broken connection is retried from where it broke; a server that does not support ranges starts over.

    Args:
        url: http or https link; redirects are followed to such links only.
        part: file to write to; existing content is assumed to be the beginning.
        size: bytes of the whole file; 0 if not known.

    Raises:
        UnavailableError: the link is empty, invalid or dead, or leads to something else.
        FgvcError: the connection keeps breaking (the part is kept), or there is no disk space.
        OSError: the file cannot be written.
    """
    host = _host(url)
    reached, failures = False, 0
    while True:
        before = _length(part)
        try:
            _attempt(url, part, size)
            return
        except urllib.error.HTTPError as error:
            if error.code not in TEMPORARY:
                raise UnavailableError(f"{url}: {error.code} {error.reason}") from error
            cause, reached = f"{error.code} {error.reason}", True
        except urllib.error.URLError as error:
            cause = _cause(error.reason)
            if not reached:
                raise UnavailableError(f"{url}: {cause}") from error
        except _ConnectionBrokenError as error:
            cause, reached = str(error), True
        failures = 0 if _length(part) - before >= MIN_PROGRESS else failures + 1
        if failures == ATTEMPTS:
            done = f"{bytes_text(_length(part))}{f' of {bytes_text(size)}' if size else ''}"
            raise FgvcError(
                f"{url}: {cause}, {ATTEMPTS} times in a row; {done} are downloaded, and another attempt resumes there"
            )
        logger.info(f"{host}: {cause}; retrying")
        time.sleep(WAITS[min(failures, len(WAITS) - 1)])


def _host(url: str) -> str:
    if not url:
        raise UnavailableError("no download link is known")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UnavailableError(f"{url}: only http and https links are supported")
    return parts.hostname


def _attempt(url: str, part: Path, size: int) -> None:
    """Open a connection and write the response; raise `_ConnectionBrokenError` if it is incomplete."""
    have = _length(part)
    if size and have > size:  # not the beginning of this file
        part.unlink()
        have = 0
    if size and have == size:
        return
    response = _open(url, part, have)
    if response is None:
        return
    with response:
        start = 0
        if response.status == 206:
            found = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
            if found is None or int(found[1]) != have:
                part.unlink()
                raise _ConnectionBrokenError("the server sent another range than requested")
            start = have
        expected: int | None = response.length
        if expected is not None:
            require_disk_space(part.parent, expected)
        if have and not start:
            logger.info(f"{part.stem}: the server does not support resuming; starting over")
        received = _write(response, part, start)
    if expected is not None and received < expected:
        raise _ConnectionBrokenError(f"the connection broke at {bytes_text(_length(part))}")


def _open(url: str, part: Path, have: int) -> Any:
    """Request the file from byte `have` on; return None if it has no more bytes."""
    headers = {"User-Agent": f"fgvc/{__version__}", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    opener = urllib.request.OpenerDirector()  # without handlers for file: and ftp:, which a redirect may name
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPErrorProcessor,
        urllib.request.UnknownHandler,
    ):
        opener.add_handler(handler())
    try:
        response: Any = opener.open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        if error.headers.get("Content-Range", "").endswith(f"/{have}"):
            return None
        part.unlink()
        raise _ConnectionBrokenError("the server's file is shorter than the part downloaded earlier") from error
    except urllib.error.URLError:
        raise
    except (OSError, http.client.HTTPException) as error:
        raise _ConnectionBrokenError(_cause(error)) from error
    if response.headers.get_content_type() == "text/html" and Path(part.stem).suffix not in (".html", ".htm"):
        response.close()
        raise UnavailableError(f"{url}: a web page instead of the file")
    return response


def _write(response: Any, part: Path, start: int) -> int:
    """Write the response to a file from byte `start` on, and return the number of bytes received."""
    received = 0
    with part.open("r+b" if start else "wb") as file:
        file.seek(start)
        with _bytes_progress(f"downloading {part.stem}", response.length) as advance:
            while block := _read(response):
                file.write(block)
                received += len(block)
                advance(len(block))
    return received


def _read(response: Any) -> bytes:
    try:
        block: bytes = response.read1(BLOCK)
    except (OSError, http.client.HTTPException) as error:
        raise _ConnectionBrokenError(_cause(error)) from error
    return block


@contextmanager
def _bytes_progress(description: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Report progress in MB or kB; yield a function that takes the number of further bytes."""
    scale, unit = (10**6, "MB") if total is None or total >= 10**7 else (1000, "kB")
    done = shown = 0
    with progress(description, None if total is None else -(-total // scale), unit) as bar:

        def advance(count: int) -> None:
            nonlocal done, shown
            done += count
            bar.advance(done // scale - shown)
            shown = done // scale

        yield advance


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _cause(error: object) -> str:
    if isinstance(error, TimeoutError):
        return f"no data for {TIMEOUT:.0f} s"
    if isinstance(error, http.client.IncompleteRead):
        return "the connection broke"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror[0].lower() + error.strerror[1:]
    return " ".join(str(error).split()) or type(error).__name__
