"""The worker processes that train the runs of a study."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from types import TracebackType

from fgvc_cli.experiments.worker import Event, Failed, Finished, Stopped, Task, work

EXIT_SECONDS = 5.0
"""Time that a process has to exit after its last event."""


@dataclass(eq=False)
class _Worker:
    """A worker process: its run and slot, the receiving end of its events, and the signals sent to it."""

    name: str
    slot: int
    process: BaseProcess
    events: Connection
    signals: list[int] = field(default_factory=list)


class WorkerPool:
    """Worker processes, each for one task.

    Where the system can fork, each starts as a copy of a process that has imported the common modules and computed
    nothing, which makes it start at once. Leaving the context terminates all of them.
    """

    def __init__(self, slots: int, modules: Sequence[str] = ()) -> None:
        self.slots = slots
        self._workers: list[_Worker] = []
        self._context = _context(modules)

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for worker in self._workers:
            worker.process.terminate()
        for worker in list(self._workers):
            self._remove(worker)

    @property
    def busy(self) -> bool:
        """Whether any worker is running."""
        return bool(self._workers)

    @property
    def free_slot(self) -> int | None:
        """The lowest free slot, from 0; None if there is none."""
        taken = {worker.slot for worker in self._workers}
        return next((slot for slot in range(self.slots) if slot not in taken), None)

    def start(self, name: str, task: Task, slot: int) -> None:
        """Start a worker for a task in a slot."""
        ours, theirs = multiprocessing.Pipe(duplex=False)
        process = self._context.Process(target=work, args=(task, theirs), name=name)  # type: ignore[attr-defined]
        process.start()
        theirs.close()
        self._workers.append(_Worker(name, slot, process, ours))

    def signal(self, number: int) -> None:
        """Send a signal to every worker."""
        for worker in self._workers:
            worker.signals.append(number)
            if worker.process.pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(worker.process.pid, number)

    def events(self, seconds: float) -> Iterator[tuple[str, Event]]:
        """Yield run names and events; wait at most `seconds` for the first one.

        A process that exits without a last event yields `Failed`, or `Stopped` if a signal of ours ended it.
        """
        ready = wait([w.events for w in self._workers] + [w.process.sentinel for w in self._workers], seconds)
        for worker in list(self._workers):
            if worker.events not in ready and worker.process.sentinel not in ready:
                continue
            event = None
            for event in _received(worker):
                yield worker.name, event
            if isinstance(event, Finished | Failed | Stopped):
                self._remove(worker)
            elif not worker.process.is_alive():
                self._remove(worker)
                yield worker.name, _event_of_exit(worker)

    def _remove(self, worker: _Worker) -> None:
        worker.process.join(EXIT_SECONDS)
        if worker.process.is_alive():  # a plugin's thread keeps it alive
            worker.process.kill()
            worker.process.join()
        worker.events.close()
        self._workers.remove(worker)


def _context(modules: Sequence[str]) -> BaseContext:
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["fgvc_cli.experiments.end_with_parent", *modules])
    # The server ignores Ctrl-C only after its imports. It inherits this mask, and so do the workers, which lift it.
    resource_tracker.ensure_running()  # it resets the mask
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return context


def _received(worker: _Worker) -> Iterator[Event]:
    with suppress(EOFError, OSError):  # the process has exited
        while worker.events.poll():
            event: Event = worker.events.recv()
            yield event
            if isinstance(event, Finished | Failed | Stopped):
                return


def _event_of_exit(worker: _Worker) -> Event:
    """Return the last event of a process that exited without sending one."""
    code = worker.process.exitcode or 0
    if worker.signals and -code in worker.signals:
        return Stopped()
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
        hint = " (out of memory?)" if -code == getattr(signal, "SIGKILL", 9) else ""
        return Failed(f"the process was killed by {name}{hint}")
    return Failed(f"the process exited unexpectedly with code {code}")
