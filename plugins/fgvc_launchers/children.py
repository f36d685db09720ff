"""Processes that each train one run, forked from one that has imported what all of them need."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from typing import Any

from fgvc_cli.errors import cause_of

POLL_SECONDS = 1.0
EXIT_SECONDS = 5.0
"""Time that a process has to exit after its work."""


class Child:
    """A process that trains one run.

    Args:
        context: see `child_context`.
        name: of the run.
        work: see `fgvc_cli.contracts.LaunchRun`.
        threads: CPU threads.
        environment: variables to set first, such as the visible GPU.
    """

    def __init__(
        self,
        context: BaseContext,
        name: str,
        work: Callable[[int | None], None],
        threads: int | None,
        environment: Mapping[str, str],
    ) -> None:
        self.name = name
        self._signals: list[int] = []
        self._problem, theirs = multiprocessing.Pipe(duplex=False)
        arguments = work, threads, dict(environment), theirs
        self._process = context.Process(target=_run, args=arguments, name=name)  # type: ignore[attr-defined]
        self._process.start()
        theirs.close()

    @property
    def waitable(self) -> list[Any]:
        """What `multiprocessing.connection.wait` takes: ready once the work has ended."""
        return [self._problem, self._process.sentinel]

    def signal(self, number: int) -> None:
        """Send a signal to the process."""
        self._signals.append(number)
        with suppress(ProcessLookupError):
            os.kill(self._process.pid, number)

    def poll(self) -> str | None:
        """Return None while it works, then the problem, or an empty string if there was none."""
        with suppress(EOFError, OSError):  # it has exited
            if self._problem.poll():
                problem: str = self._problem.recv()
                self.close()
                return problem
        if self._process.is_alive():
            return None
        self.close()
        return self._exit_problem(self._process.exitcode or 0)

    def problem_at_end(self) -> str:
        """Wait until it has ended, and return the problem; an interruption (Ctrl-C) makes it save its state and end."""
        while True:
            try:
                if (problem := self.poll()) is not None:
                    return problem
                wait(self.waitable, POLL_SECONDS)
            except KeyboardInterrupt:
                self.signal(signal.SIGTERM)

    def close(self) -> None:
        """Wait for the process to exit, and kill it if a plugin's thread keeps it alive."""
        self._process.join(EXIT_SECONDS)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._problem.close()

    def _exit_problem(self, code: int) -> str:
        if -code in self._signals:
            return ""
        if code < 0:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
            hint = " (out of memory?)" if -code == getattr(signal, "SIGKILL", 9) else ""
            return f"the process was killed by {name}{hint}"
        return f"the process exited unexpectedly with code {code}"


def child_context(modules: Sequence[str]) -> BaseContext:
    """Return the context that children start from.

    Where the system can fork, each is a copy of a process that has imported these modules and computed nothing, which
    makes it start at once.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["fgvc_launchers.end_with_parent", *modules])
    # The server ignores Ctrl-C only after its imports. It inherits this mask, and so do the children, which lift it.
    resource_tracker.ensure_running()  # it resets the mask
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return context


def _run(
    work: Callable[[int | None], None], threads: int | None, environment: Mapping[str, str], problem: Connection
) -> None:
    """The main function of a child."""
    os.environ.update(environment)
    if hasattr(signal, "pthread_sigmask"):  # see `child_context`
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    try:
        work(threads)
    except BaseException as error:
        _send(problem, cause_of(error))
        raise
    _send(problem, "")


def _send(problem: Connection, text: str) -> None:
    with suppress(OSError):  # the parent is gone
        problem.send(text)
