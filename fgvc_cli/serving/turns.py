"""One computation at a time, while a bounded number of requests wait for their turn."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from fgvc_cli.serving.limits import Limits, RefusedError

T = TypeVar("T")


class Turns:
    """Runs the work of requests in one thread, in the order in which they ask for it.

    Args:
        limits: how many may wait, and how long.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._thread = ThreadPoolExecutor(1, "inference")
        self._free = asyncio.Lock()
        self.taken = 0
        """requests that are received, wait or are computed"""

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place for a request, from before its body is received until it is answered.

        Raises:
            RefusedError: all places are taken.
        """
        if self.taken > self._limits.queue:
            raise RefusedError(503, f"busy: {self._limits.queue} requests wait already; try again in a few seconds")
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1

    async def run(self, work: Callable[[], T], is_gone: Callable[[], Awaitable[bool]]) -> T:
        """Return the result of some work, once those before it are done.

        Work that has begun cannot be stopped: if this call is cancelled then, the next one waits for its end.

        Args:
            work: runs in the thread.
            is_gone: whether the client has left; the work is dropped then.
        """
        await self._free.acquire()
        try:
            if await is_gone():
                raise RefusedError(408, "the client has left")
            job = asyncio.get_running_loop().run_in_executor(self._thread, work)
        except BaseException:
            self._free.release()
            raise
        job.add_done_callback(self._done)
        return await asyncio.shield(job)

    def _done(self, job: asyncio.Future[T]) -> None:
        self._free.release()
        if not job.cancelled():
            job.exception()  # nobody waits for it if its request was cancelled
