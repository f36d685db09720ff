"""Options of the built-in launchers; free of torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fgvc_cli import option


@dataclass(frozen=True)
class RayOptions:
    """Options of `ray`."""

    address: str = option(
        "auto",
        "address of the cluster, as HOST:PORT or ray://HOST:PORT; auto: the one that this machine belongs to; local: "
        "start Ray on this machine for the time of the study",
    )
    cpus: float = option(1.0, "CPU cores per run", minimum=0.0)
    gpus: float | None = option(
        None,
        "GPUs per run, or a fraction of one; none: 1 where the cluster has any and the device is not cpu",
        minimum=0.0,
    )
    memory: float | None = option(None, "memory per run, in GB; none: not reserved", minimum=0.0)
    retries: int = option(3, "times that a run is resumed elsewhere after its worker or machine was lost", minimum=0)


@dataclass(frozen=True)
class SlurmOptions:
    """Options of `slurm`."""

    partition: str | None = option(None, "partition of the jobs; none: the cluster's default")
    hours: float = option(24.0, "time limit of a job, in hours; a run that needs longer is requeued", minimum=0.01)
    gpus: int | None = option(None, "GPUs per run; none: 1, or 0 if the device is cpu", minimum=0)
    cpus: int = option(4, "CPU cores per run", minimum=1)
    memory: float | None = option(None, "memory per run, in GB; none: the partition's default", minimum=0.1)
    account: str | None = option(None, "account that is charged")
    qos: str | None = option(None, "quality of service")
    constraint: str | None = option(None, "features that a node must have")
    exclude: str | None = option(None, "nodes to avoid, such as node[3-5]")
    setup: tuple[str, ...] = option((), "shell lines that a job runs first, such as module load cuda")
    requeues: int = option(100, "times that a run is requeued at the time limit; preemption does not count", minimum=0)
    grace: int = option(120, "seconds before the time limit in which a run saves its state", minimum=10)
    cluster: Literal["slurm", "local"] = option(
        "slurm", "local: submitit's processes on this machine instead of Slurm's jobs, to try the settings"
    )
