"""Ask a model hub for a file without downloading it."""

from __future__ import annotations

import queue
import threading
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from email.message import Message
from typing import Any

TIMEOUT = 2.0
"""Timeout of the request in seconds, name resolution included."""

MAX_REDIRECTS = 5


@dataclass(frozen=True)
class Answer:
    """Whether a file can be downloaded.

    Attributes:
        host: name of the server.
        available: whether it can.
        size: in bytes; None if unknown.
        reason: why not, as the end of a sentence: "the hub cannot be reached".
    """

    host: str
    available: bool
    size: int | None = None
    reason: str = ""


def probe(url: str) -> Answer:
    """Request the headers of a file (HTTP HEAD), through the proxies in the environment.

    The request runs in a daemon thread, because neither name resolution nor a proxy obeys a timeout.
    """
    host = urllib.parse.urlsplit(url).hostname or url
    answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
    threading.Thread(target=lambda: answers.put(_ask(url, host)), name="hub-probe", daemon=True).start()
    try:
        return answers.get(timeout=TIMEOUT)
    except queue.Empty:
        return Answer(host, False, reason=f"the hub cannot be reached (no answer from {host} in {TIMEOUT:.0f} s)")


class _KeepRedirect(urllib.request.HTTPRedirectHandler):
    """Returns a redirection instead of following it: its headers may already have the size."""

    def redirect_request(self, *args: Any) -> None:  # noqa: ARG002
        return None


def _ask(url: str, host: str) -> Answer:
    opener = urllib.request.build_opener(_KeepRedirect)
    try:
        for _ in range(MAX_REDIRECTS):
            status, headers = _head(opener, url)
            size = _size(headers)
            if status < 300 or (status < 400 and headers.get("X-Linked-Size")):
                return Answer(host, True, size)
            if status >= 400 or not headers.get("Location"):
                return Answer(host, False, reason=f"{host} returned HTTP {status}")
            url = urllib.parse.urljoin(url, headers["Location"])
    except (OSError, ValueError, urllib.error.URLError) as error:
        cause = getattr(error, "reason", error)
        cause = getattr(cause, "strerror", None) or cause
        return Answer(host, False, reason=f"the hub cannot be reached ({host}: {cause})")
    return Answer(host, False, reason=f"{host} redirects too often")


def _head(opener: urllib.request.OpenerDirector, url: str) -> tuple[int, Message]:
    request = urllib.request.Request(url, method="HEAD", headers={"User-Agent": "fgvc-cli"})
    try:
        with opener.open(request, timeout=TIMEOUT) as response:
            return response.status, response.headers
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers


def _size(headers: Message) -> int | None:
    """Return the size of the file; in a redirect of the hub, it is in a separate header."""
    text = headers.get("X-Linked-Size") or headers.get("Content-Length") or ""
    return int(text) if text.isdigit() and int(text) > 0 else None
