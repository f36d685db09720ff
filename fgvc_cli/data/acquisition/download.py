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
from fgvc_cli.data.acquisition.plan import require_room
from fgvc_cli.errors import FgvcError
from fgvc_cli.formatting import bytes_text
from fgvc_cli.progress import progress

logger = logging.getLogger(__name__)


@contextmanager
def bytes_progress(description: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show how far some bytes are; gives a function that takes how many more are done.

    Args:
        description: what is being done, in a word or two.
        total: bytes in all; None if that is unknown.
    """
    scale, unit = (10**6, "MB") if total is None or total >= 10**7 else (1000, "kB")
    done = shown = 0
    with progress(description, None if total is None else -(-total // scale), unit) as bar:

        def advance(count: int) -> None:
            nonlocal done, shown
            done += count
            bar.advance(done // scale - shown)
            shown = done // scale

        yield advance


ALGORITHMS = ("md5", "sha256")
PART = ".part"
"""How the name of a file ends that is not wholly downloaded and verified."""

CHECKSUM_BLOCK = 1 << 20


def fault_of(path: Path, checksum: str, size: int) -> str:
    """Say what is wrong with a file; empty if nothing is, as far as is known.

    Args:
        path: the file.
        checksum: "md5:..." or "sha256:..."; empty if none is published. Where there is one, it decides.
        size: bytes; 0 if not known.

    Raises:
        FgvcError: the checksum has no such form.
    """
    actual = path.stat().st_size
    differs = f"{bytes_text(actual)} ({actual} bytes) where {size} bytes were published"
    if not checksum:
        return differs if size and actual != size else ""
    algorithm, colon, expected = checksum.partition(":")
    if algorithm not in ALGORITHMS or not colon:
        raise FgvcError(f"{path.name}: '{checksum}' is no checksum of the form md5:... or sha256:...")
    found = _digest(path, algorithm)
    if found == expected.lower():
        return ""
    return f"its {algorithm} is {found} where {expected} was published" + (f", {differs}" if actual != size > 0 else "")


def _digest(path: Path, algorithm: str) -> str:
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with (
        path.open("rb") as file,
        bytes_progress(f"verifying {path.name.removesuffix(PART)}", path.stat().st_size) as advance,
    ):
        while block := file.read(CHECKSUM_BLOCK):
            digest.update(block)
            advance(len(block))
    return digest.hexdigest()


ATTEMPTS = 5
"""Attempts in a row that bring nearly nothing before it is given up."""

ENOUGH = 1 << 16
"""Bytes that make an attempt a good one."""

WAITS = (1.0, 2.0, 4.0, 8.0)
"""Seconds before the second, third, ... attempt in a row."""

TIMEOUT = 30.0
"""Seconds without a byte after which a connection counts as broken."""

BLOCK = 1 << 18
TEMPORARY = (408, 425, 429, 500, 502, 503, 504)
"""Answers that say nothing about the file: another attempt may fare better."""


class UnavailableError(FgvcError):
    """A file cannot be had by its link, or what the link gives is not the file."""


class _BrokenOffError(Exception):
    """The connection ended too early; another attempt may bring the rest."""


def fetch(url: str, part: Path, size: int) -> None:
    """Download a file, or what is still missing of it.

    A connection that breaks off is opened again, from where it broke. A server that cannot send a part of a file sends
    it from the beginning.

    Args:
        url: the link, http or https; redirects are followed, to such links alone.
        part: where it is written; what is there already is taken for its beginning.
        size: bytes of the whole file; 0 if not known.

    Raises:
        UnavailableError: the link is dead, is none, or leads to something else.
        FgvcError: the connection broke off again and again (what is there is kept), or there is no room.
        OSError: it cannot be written.
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
            cause = _words(error.reason)
            if not reached:
                raise UnavailableError(f"{url}: {cause}") from error
        except _BrokenOffError as error:
            cause, reached = str(error), True
        failures = 0 if _length(part) - before >= ENOUGH else failures + 1
        if failures == ATTEMPTS:
            there = f"{bytes_text(_length(part))}{f' of {bytes_text(size)}' if size else ''} are here"
            raise FgvcError(f"{url}: {cause}, {ATTEMPTS} times in a row; {there}. The same command goes on from there.")
        logger.info(f"{host}: {cause}; trying again")
        time.sleep(WAITS[min(failures, len(WAITS) - 1)])


def _host(url: str) -> str:
    if not url:
        raise UnavailableError("no link to it is known")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UnavailableError(f"{url}: only http and https links are followed")
    return parts.hostname


def _attempt(url: str, part: Path, size: int) -> None:
    """Open a connection and write what it brings; raises `_BrokenOffError` if that is not all."""
    have = _length(part)
    if size and have > size:  # not the beginning of this file
        part.unlink()
        have = 0
    if size and have == size:
        return
    response = _opened(url, part, have)
    if response is None:
        return
    with response:
        begins_at = _begin(response, have)
        if begins_at is None:
            part.unlink()
            raise _BrokenOffError("the server sent another part of the file than was asked for")
        expected: int | None = response.length
        if expected is not None:
            require_room(part.parent, expected)
        if have and not begins_at:
            logger.info(f"{part.stem}: this server cannot send the rest of a file; starting over")
        received = _write(response, part, begins_at)
    if expected is not None and received < expected:
        raise _BrokenOffError(f"the connection broke off at {bytes_text(_length(part))}")


def _opened(url: str, part: Path, have: int) -> Any:
    """Ask for the file from byte `have` on; None if the server says that there is no more."""
    headers = {"User-Agent": f"fgvc/{__version__}", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    try:
        response = _opener().open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        if error.headers.get("Content-Range", "").endswith(f"/{have}"):
            return None
        part.unlink()
        raise _BrokenOffError("the server has less of the file than is here") from error
    except urllib.error.URLError:
        raise
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenOffError(_words(error)) from error
    kind = response.headers.get_content_type()
    if kind == "text/html" and Path(part.stem).suffix not in (".html", ".htm"):
        response.close()
        raise UnavailableError(f"{url}: a web page instead of the file")
    return response


def _opener() -> urllib.request.OpenerDirector:
    """Return what opens http and https links alone, whatever a redirect names."""
    opener = urllib.request.OpenerDirector()
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
    return opener


def _begin(response: Any, have: int) -> int | None:
    """Return the byte that the answer begins at; None if it is neither what was asked for nor the first."""
    if response.status != 206:
        return 0
    found = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return have if found is not None and int(found[1]) == have else None


def _write(response: Any, part: Path, begins_at: int) -> int:
    """Write what comes, and return how many bytes that was."""
    received = 0
    with part.open("r+b" if begins_at else "wb") as file:
        file.seek(begins_at)
        with bytes_progress(f"downloading {part.stem}", response.length) as advance:
            while block := _read(response):
                file.write(block)
                received += len(block)
                advance(len(block))
    return received


def _read(response: Any) -> bytes:
    try:
        block: bytes = response.read1(BLOCK)
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenOffError(_words(error)) from error
    return block


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _words(error: object) -> str:
    """Say in a few words what went wrong with a connection."""
    if isinstance(error, TimeoutError):
        return f"nothing came for {TIMEOUT:.0f} s"
    if isinstance(error, http.client.IncompleteRead):
        return "the connection broke off"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror[0].lower() + error.strerror[1:]
    return " ".join(str(error).split()) or type(error).__name__
