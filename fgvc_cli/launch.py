"""What torchrun tells a process of the others: it starts the same command line in each, and the environment differs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Launch:
    """Which of how many processes this is.

    Attributes:
        rank: among all, from 0.
        count: of all processes, on every machine (torch's world size).
        local_rank: among those of this machine.
        local_count: of those of this machine.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    local_count: int = 1


def launched(environment: Mapping[str, str] | None = None) -> Launch:
    """Read the environment; without torchrun, and under it with one process, the process is alone."""
    environment = os.environ if environment is None else environment
    if not all(name in environment for name in VARIABLES) or int(environment["WORLD_SIZE"]) < 2:
        return Launch()
    count = int(environment["WORLD_SIZE"])
    local_count = int(environment.get("LOCAL_WORLD_SIZE", count))
    return Launch(int(environment["RANK"]), count, int(environment["LOCAL_RANK"]), local_count)


_reporting = False


def report_from_here() -> None:
    """Make this process print although it is not the first: it is the first to fail, and knows why."""
    global _reporting
    _reporting = True


def is_reporting() -> bool:
    """Return whether this process prints: the first one does, and one that called `report_from_here`."""
    return _reporting or launched().rank == 0
