"""Rank of this process under torchrun or `fgvc train --devices`, and the processor cores it may use."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

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


PARENT = "FGVC_PARENT"
"""Environment variable with the process id of the `fgvc train --devices` that starts a process."""

GRACE = 60.0
"""Seconds that a process has to save its state after that one is gone."""

_parent: int | None = None


def follow_parent() -> None:
    """Send this process a SIGTERM when the `fgvc train --devices` that started it is gone, even if it was killed."""
    global _parent
    if (parent := os.environ.pop(PARENT, "")).isdecimal():
        _parent = int(parent)
        threading.Thread(target=_follow, args=(_parent,), daemon=True).start()


def _follow(parent: int) -> None:
    direct = os.getppid()  # another one, if a wrapper such as numactl stays between them
    while os.getppid() == direct and _exists(parent):
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os._exit(128 + signal.SIGTERM)


def _exists(process: int) -> bool:
    if os.name != "posix":  # a signal 0 would be a Ctrl-C
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def started_by_fgvc() -> bool:
    """Return whether `fgvc train --devices` started this process, and not torchrun or a person."""
    return _parent is not None


_reporting = False


def report_from_here() -> None:
    """Let this process print although it is not the first, because it is the one that failed."""
    global _reporting
    _reporting = True


def is_reporting() -> bool:
    """Return whether this process prints: the first one, and one that called `report_from_here`."""
    return _reporting or launched().rank == 0


def usable_cores() -> int:
    """Return the number of cores that this process may use: by its affinity, and by the CPU quota of a container."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota()
    return cores if quota is None else max(1, min(cores, int(quota)))


CGROUPS = Path("/sys/fs/cgroup")


def cpu_quota() -> float | None:
    """Return the CPU quota of the control group in cores; None without one, or outside Linux."""
    for name in ("cpu.max", "cpu/cpu.cfs_quota_us"):  # version 2: "QUOTA PERIOD", version 1: one file each
        try:
            quota, *period = (CGROUPS / name).read_text().split()
            if quota in ("max", "-1"):
                return None
            period = period or (CGROUPS / "cpu/cpu.cfs_period_us").read_text().split()
            return int(quota) / int(period[0])
        except (OSError, ValueError, IndexError, ZeroDivisionError):
            continue
    return None
