"""The launcher contract: train the runs of a study in processes of this machine or of others."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class LaunchRun:
    """A run to train.

    Attributes:
        name: unique in the study.
        work: trains the run, or resumes it; returns when it has ended, whether it is finished, failed or saved and
            stopped, which it writes into the study folder. It can be pickled. It is called once, in the main thread of
            a process of its own, with the number of CPU threads to use (None: torch's default). SIGTERM makes it save
            its state and return. A second call, in any process, resumes the run if it is not finished, and returns at
            once if another process is training it.
    """

    name: str
    work: Callable[[int | None], None]


@dataclass(frozen=True)
class LaunchStudy:
    """The study whose runs are launched.

    Attributes:
        folder: an absolute path, on a disk that all processes see.
        modules: modules worth importing once, where many runs are trained one after the other.
        check: can be pickled; called where runs will be trained, it returns why they could not be, in one line: the
            folder is missing there, or fgvc has another version. Empty if nothing is wrong.
    """

    folder: Path
    modules: Sequence[str]
    check: Callable[[], str]


@dataclass(frozen=True)
class RunEnded:
    """The process of a run has ended.

    Attributes:
        name: of the run.
        problem: why its `work` did not return, in one line: "the process was killed by SIGKILL". Empty if it returned,
            or was cancelled.
    """

    name: str
    problem: str = ""


class Launcher(ABC):
    """Trains the runs of a study somewhere.

    The host calls the component's target as `target(options=..., jobs=..., device=...)`, then `start` once, then the
    other methods from one thread, and `close` at the end. A launcher keeps no state that matters: all of it is in the
    study folder, and if the process of the launcher is killed, another one launches what is left. It may launch a run
    again after its process has ended; two processes that work on one run are harmless.

    Args:
        options: of the component.
        jobs: runs to train at a time; None: as many as there is room for.
        device: of the study: "auto" (the best that a machine has), "cpu", "cuda" or "mps".

    Raises:
        FgvcError: a package is not installed, the cluster cannot be reached, or it will never have the resources.
    """

    @abstractmethod
    def __init__(self, options: Any, jobs: int | None, device: str) -> None: ...

    @property
    @abstractmethod
    def capacity(self) -> int | None:
        """The number of runs to submit at a time; None if the launcher queues them itself."""

    @abstractmethod
    def start(self, study: LaunchStudy) -> None:
        """Prepare to launch runs of a study.

        Raises:
            FgvcError: runs could not be trained; names the reason that `study.check` gave.
        """

    @abstractmethod
    def submit(self, runs: Sequence[LaunchRun]) -> None:
        """Launch runs, of which `capacity` at most are submitted and have not ended.

        Raises:
            FgvcError: they were refused.
        """

    @abstractmethod
    def ended(self, seconds: float) -> list[RunEnded]:
        """Return the submitted runs whose processes have ended, each once; wait at most `seconds` for the first one.

        Raises:
            FgvcError: no run can be trained any more.
        """

    @abstractmethod
    def cancel(self, names: Collection[str]) -> None:
        """Make submitted runs save their state and end, or not start; `ended` returns them all the same.

        Names of runs that have ended are ignored.
        """

    @abstractmethod
    def close(self) -> None:
        """End all processes; runs that have not ended save their state if they can."""
