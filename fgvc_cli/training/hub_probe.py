"""One question to a download server: is the file there, and how large is it? Bounded in time, come what may."""

from __future__ import annotations

import queue
import threading
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from email.message import Message
from typing import Any

PATIENCE = 2.0
"""Seconds that the whole question may take, the search for the server's address included."""

MAX_HOPS = 5


@dataclass(frozen=True)
class Answer:
    """What the server said.

    Attributes:
        host: that was asked.
        available: whether the file can be downloaded.
        size: bytes, if the server told.
        reason: why not, as the end of a sentence: "the hub cannot be reached".
    """

    host: str
    available: bool
    size: int | None = None
    reason: str = ""


def probe(url: str) -> Answer:
    """Ask for a file's headers (HTTP HEAD), through the proxies that the environment names.

    The question is put in a thread, since neither the look-up of a name nor a proxy obeys a time limit; a
    thread left waiting does not keep the program from ending.
    """
    host = urllib.parse.urlsplit(url).hostname or url
    answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
    threading.Thread(target=lambda: answers.put(_ask(url, host)), name="hub-probe", daemon=True).start()
    try:
        return answers.get(timeout=PATIENCE)
    except queue.Empty:
        return Answer(host, False, reason=f"the hub cannot be reached (no answer from {host} in {PATIENCE:.0f} s)")


class _KeepRedirect(urllib.request.HTTPRedirectHandler):
    """Hands a redirection back instead of following it: its headers may already tell the size."""

    def redirect_request(self, *args: Any) -> None:  # noqa: ARG002
        return None


def _ask(url: str, host: str) -> Answer:
    opener = urllib.request.build_opener(_KeepRedirect)
    try:
        for _ in range(MAX_HOPS):
            status, headers = _head(opener, url)
            size = _size(headers)
            if status < 300 or (status < 400 and headers.get("X-Linked-Size")):
                return Answer(host, True, size)
            if status >= 400 or not headers.get("Location"):
                return Answer(host, False, reason=f"{host} refuses them (HTTP {status})")
            url = urllib.parse.urljoin(url, headers["Location"])
    except (OSError, ValueError, urllib.error.URLError) as error:
        cause = getattr(error, "reason", error)
        cause = getattr(cause, "strerror", None) or cause
        return Answer(host, False, reason=f"the hub cannot be reached ({host}: {cause})")
    return Answer(host, False, reason=f"{host} sends the request in circles")


def _head(opener: urllib.request.OpenerDirector, url: str) -> tuple[int, Message]:
    request = urllib.request.Request(url, method="HEAD", headers={"User-Agent": "fgvc-cli"})
    try:
        with opener.open(request, timeout=PATIENCE) as response:
            return response.status, response.headers
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers


def _size(headers: Message) -> int | None:
    """Return the file's size; the hub tells it in a header of its own when it redirects to where the file lies."""
    text = headers.get("X-Linked-Size") or headers.get("Content-Length") or ""
    return int(text) if text.isdigit() and int(text) > 0 else None
