"""Connections: a bounded number, none of which does nothing for long. uvicorn bounds neither."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

MAX_CONNECTIONS = 128
"""A process may have 256 files open on macOS; asyncio prints a traceback for each connection that it cannot accept."""


class Connection(H11Protocol):
    """Closes itself if there are too many, or if it has had no new request for a while.

    Attributes:
        patience: seconds without a new request. Requests are answered within half of that.
    """

    patience = 120.0
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, or refuse to."""
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()
        else:
            self._timer = self.loop.call_later(self.patience, self._check, None)

    def connection_lost(self, exc: Exception | None) -> None:
        """End; a timer would keep the memory of the connection."""
        super().connection_lost(exc)
        if self._timer is not None:
            self._timer.cancel()

    def _check(self, last: Any) -> None:
        """Close the connection if its request is still the last one."""
        if self.cycle is last:
            self.transport.abort()
        else:
            self._timer = self.loop.call_later(self.patience, self._check, self.cycle)


def connections(patience: float) -> type[Connection]:
    """Return the protocol of a server."""
    return type("Connection", (Connection,), {"patience": patience})
