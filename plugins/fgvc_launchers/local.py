"""Train runs in processes of this machine."""

from __future__ import annotations

import os
import signal
from collections.abc import Collection, Mapping, Sequence
from multiprocessing.connection import wait
from typing import Any

import torch

from fgvc_cli import FgvcError
from fgvc_cli.contracts import Launcher, LaunchRun, LaunchStudy, RunEnded
from fgvc_cli.launch import usable_cores
from fgvc_launchers.children import Child, child_context

GPUS = "CUDA_VISIBLE_DEVICES"


class LocalLauncher(Launcher):
    """Train runs in processes of this machine, `jobs` at a time (1 by default), each on its own GPU.

    Several runs share the CPU cores evenly; one that trains alone is not limited.
    """

    def __init__(self, options: Any, jobs: int | None, device: str) -> None:  # noqa: ARG002
        self.jobs = jobs or 1
        self.on_gpus = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
        self._children: dict[int, Child] = {}
        """By slot, from 0."""

    @property
    def capacity(self) -> int:
        """The number of runs trained at a time."""
        return self.jobs

    def start(self, study: LaunchStudy) -> None:
        """Import what all runs need in a process that they are forked from.

        Raises:
            FgvcError: the study folder cannot be used.
        """
        if problem := study.check():
            raise FgvcError(problem)
        self._context = child_context(study.modules)

    def submit(self, runs: Sequence[LaunchRun]) -> None:
        """Start a process for each run, in the lowest free slot."""
        for run in runs:
            slot = next(number for number in range(self.jobs) if number not in self._children)
            self._children[slot] = Child(self._context, run.name, run.work, *self.share(slot))

    def share(self, slot: int) -> tuple[int | None, Mapping[str, str]]:
        """Return the CPU threads of the run in a slot (None: no limit) and the variables that select its GPU."""
        if self.jobs == 1:
            return None, {}
        if not self.on_gpus:
            return max(1, usable_cores() // self.jobs), {}
        visible = [gpu for gpu in os.environ.get(GPUS, "").split(",") if gpu.strip()]
        gpus = visible or [str(number) for number in range(max(1, torch.cuda.device_count()))]
        return None, {GPUS: gpus[slot % len(gpus)]}

    def ended(self, seconds: float) -> list[RunEnded]:
        """Return the runs whose processes have ended."""
        wait([each for child in self._children.values() for each in child.waitable], seconds)
        problems = {slot: child.poll() for slot, child in self._children.items()}
        return [
            RunEnded(self._children.pop(slot).name, problem)
            for slot, problem in problems.items()
            if problem is not None
        ]

    def cancel(self, names: Collection[str]) -> None:
        """Send SIGTERM."""
        for child in self._children.values():
            if child.name in names:
                child.signal(signal.SIGTERM)

    def close(self) -> None:
        """Terminate the processes that are left."""
        self.cancel([child.name for child in self._children.values()])
        for child in self._children.values():
            child.close()
        self._children.clear()
