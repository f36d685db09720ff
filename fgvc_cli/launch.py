"""Rank of this process under torchrun, and the processor cores it may use."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Launch:
    """Rank of this process.

    Attributes:
        rank: among all processes, from 0.
        count: number of processes on all machines (torch's world size).
        local_rank: among the processes of this machine.
        local_count: number of processes of this machine.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    local_count: int = 1


def launched(environment: Mapping[str, str] | None = None) -> Launch:
    """Return the rank that the environment gives; rank 0 of 1 without torchrun."""
    environment = os.environ if environment is None else environment
    if not all(name in environment for name in VARIABLES) or int(environment["WORLD_SIZE"]) < 2:
        return Launch()
    count = int(environment["WORLD_SIZE"])
    local_count = int(environment.get("LOCAL_WORLD_SIZE", count))
    return Launch(int(environment["RANK"]), count, int(environment["LOCAL_RANK"]), local_count)


_reporting = False


def report_from_here() -> None:
    """Let this process print although it is not the first, because it is the one that failed."""
    global _reporting
    _reporting = True


def is_reporting() -> bool:
    """Return whether this process prints: the first one, and one that called `report_from_here`."""
    return _reporting or launched().rank == 0


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
