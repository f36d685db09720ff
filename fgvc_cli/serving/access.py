"""Who may send what: names of the server, pages of other origins, and the size of requests."""

from __future__ import annotations

import ipaddress
import json
import logging
from collections.abc import Collection
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fgvc_cli.formatting import bytes_text
from fgvc_cli.serving.limits import RefusedError

logger = logging.getLogger(__name__)

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src blob: data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
RETRY_SECONDS = 2
"""After which a refused client should try again."""


class Json(JSONResponse):
    """A JSON answer, of whatever names that files and forms have: halves of surrogate pairs become JSON escapes."""

    def render(self, content: Any) -> bytes:
        """Return the bytes of a document."""
        return json.dumps(content, ensure_ascii=False, allow_nan=False).encode(errors="backslashreplace")


def refusal(error: RefusedError) -> Json:
    """Log a refusal, and return its answer: one line, as JSON."""
    logger.info(f"refused ({error.status}): {error.message}")
    headers = {"Retry-After": str(RETRY_SECONDS)} if error.status == 503 else None
    return Json({"error": error.message}, error.status, headers)


class Access:
    """Refuses requests by their headers, counts the bytes of the others, and adds `HEADERS` to all answers.

    The name in the Host header must be known, or an address: a page whose name is rebound to this machine would
    otherwise count as of the same origin (DNS rebinding). Starlette's TrustedHostMiddleware takes names and no
    addresses, of which a server that listens on all interfaces has many; an address cannot be rebound.

    Args:
        app: the application.
        max_upload: bytes of a request.
        names: host names of this server, in lower case.
    """

    def __init__(self, app: ASGIApp, max_upload: int, names: Collection[str]) -> None:
        self._app, self._max_upload, self._names = app, max_upload, frozenset(names)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._max_upload:
                raise self._too_large()
            return message

        async def completed(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        try:
            self._check(scope["method"], Headers(scope=scope))
        except RefusedError as error:
            await refusal(error)(scope, receive, completed)
        else:
            await self._app(scope, counted, completed)

    def _too_large(self) -> RefusedError:
        return RefusedError(
            413, f"the request is larger than {bytes_text(self._max_upload)}; send fewer or smaller images"
        )

    def _check(self, method: str, headers: Headers) -> None:
        host = headers.get("host", "")
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            name = ""
        if not (name in self._names or _is_address(name)):
            raise RefusedError(403, f"this server is not called {name[:100]!r}; allow the name with `allow_host`")
        origin = headers.get("origin")
        if origin is not None and method not in ("GET", "HEAD") and origin.partition("://")[2].lower() != host.lower():
            raise RefusedError(403, "pages of another origin may not use this server")
        length = headers.get("content-length", "0")
        if length.isdecimal() and (len(length) > 18 or int(length) > self._max_upload):
            raise self._too_large()


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
