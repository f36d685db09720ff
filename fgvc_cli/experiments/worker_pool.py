"""The worker processes that train the runs of a study."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from types import TracebackType

from fgvc_cli.experiments.worker import Event, Failed, Finished, Stopped, Task, work

LAST_WORDS = 5.0
"""Seconds that a process has to end in, once it has told how its training ended."""


@dataclass(eq=False)
class _Worker:
    """A process at work.

    Attributes:
        name: of the run that it trains.
        place: which of the places it has.
        process: itself.
        told: what it tells comes out here.
        signals: that it was sent.
    """

    name: str
    place: int
    process: BaseProcess
    told: Connection
    signals: list[int] = field(default_factory=list)


class WorkerPool:
    """Processes that do tasks, at most so many at a time.

    Each begins as a copy of one that has imported what all of them need and computed nothing (where the system has
    that), so that it is at work at once. As a context, it leaves no process behind.

    Args:
        places: how many may work at a time.
        modules: to be imported once for all of them.
    """

    def __init__(self, places: int, modules: Sequence[str] = ()) -> None:
        self.places = places
        self._workers: list[_Worker] = []
        self._context = _context(modules)

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for worker in self._workers:
            worker.process.terminate()
        for worker in list(self._workers):
            self._dismiss(worker)

    @property
    def busy(self) -> bool:
        """Whether any process is at work."""
        return bool(self._workers)

    @property
    def free_place(self) -> int | None:
        """A place that is free, from 0, or None."""
        taken = {worker.place for worker in self._workers}
        return next((place for place in range(self.places) if place not in taken), None)

    def start(self, name: str, task: Task, place: int) -> None:
        """Have a process do a task in a place."""
        ours, theirs = multiprocessing.Pipe(duplex=False)
        process = self._context.Process(target=work, args=(task, theirs), name=name)  # type: ignore[attr-defined]
        process.start()
        theirs.close()
        self._workers.append(_Worker(name, place, process, ours))

    def signal(self, number: int) -> None:
        """Pass a signal on to every process."""
        for worker in self._workers:
            worker.signals.append(number)
            if worker.process.pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(worker.process.pid, number)

    def events(self, seconds: float) -> Iterator[tuple[str, Event]]:
        """Give what has been told, with the name of the run; wait at most so long for something.

        A process that ends without a word of it is told of too: its run has failed, or was stopped.
        """
        ready = wait([w.told for w in self._workers] + [w.process.sentinel for w in self._workers], seconds)
        for worker in list(self._workers):
            if worker.told not in ready and worker.process.sentinel not in ready:
                continue
            event = None
            for event in _received(worker):
                yield worker.name, event
            if isinstance(event, Finished | Failed | Stopped):
                self._dismiss(worker)
            elif not worker.process.is_alive():
                self._dismiss(worker)
                yield worker.name, _silent_end(worker)

    def _dismiss(self, worker: _Worker) -> None:
        worker.process.join(LAST_WORDS)
        if worker.process.is_alive():  # a plugin's thread keeps it
            worker.process.kill()
            worker.process.join()
        worker.told.close()
        self._workers.remove(worker)


def _context(modules: Sequence[str]) -> BaseContext:
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(modules))
    return context


def _received(worker: _Worker) -> Iterator[Event]:
    with suppress(EOFError, OSError):  # it has ended
        while worker.told.poll():
            event: Event = worker.told.recv()
            yield event
            if isinstance(event, Finished | Failed | Stopped):
                return


def _silent_end(worker: _Worker) -> Event:
    """Say what became of a training whose process ended without telling."""
    code = worker.process.exitcode or 0
    if worker.signals and -code in worker.signals:
        return Stopped()
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
        memory = ": was memory short?" if -code == getattr(signal, "SIGKILL", 9) else ""
        return Failed(f"its process was ended by {name}{memory}")
    return Failed(f"its process ended with exit code {code}, and said nothing")
