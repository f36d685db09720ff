"""Start a training in several processes with torchrun's own launcher, for `fgvc train --devices`."""

from __future__ import annotations

import logging
import os
import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import uuid4

import torch

from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.launch import PARENT, usable_cores

logger = logging.getLogger(__name__)

MOST = 512
"""Maximum number of processes on a machine."""

WAIT = 600
"""Seconds that a machine waits for the others."""

POLL = 0.2
"""Seconds between two looks at the processes."""


@dataclass(frozen=True)
class Processes:
    """The processes of a training.

    Attributes:
        local: number on each machine.
        nodes: number of machines.
        rendezvous: HOST:PORT of one of the machines, where they meet; empty for one machine.

    Raises:
        UsageError: there are several machines and no valid `rendezvous`, or one machine and a `rendezvous`.
    """

    local: int
    nodes: int = 1
    rendezvous: str = ""

    def __post_init__(self) -> None:
        if self.nodes > 1 and not self.rendezvous:
            raise UsageError(
                f"`nodes={self.nodes}`: give the address of one of the machines, `rendezvous=HOST:29400`, and start "
                "the same command on each"
            )
        if self.nodes == 1 and self.rendezvous:
            raise UsageError(f"`rendezvous={self.rendezvous}` is for several machines; give their number as `nodes`")
        port = re.fullmatch(r"[^\s:]+:(\d{1,5})|\[[0-9a-fA-F:]+\]:(\d{1,5})", self.rendezvous)
        if self.rendezvous and (port is None or not 0 < int(port[1] or port[2]) < 65536):
            raise UsageError(f"`rendezvous={self.rendezvous}`: give host and port, such as node1:29400")

    @property
    def count(self) -> int:
        """Number on all machines."""
        return self.local * self.nodes


def count_devices(wanted: str, device: torch.device) -> int:
    """Return the number of processes to start on this machine: one per GPU; on a CPU, as many as wanted.

    Args:
        wanted: a number, or "auto": all GPUs, or one process without any.
        device: that the training computes on.

    Raises:
        UsageError: `wanted` is neither, or exceeds the number of devices.
    """
    there = {"cuda": torch.cuda.device_count(), "cpu": MOST}.get(device.type, 1)
    if device.index is not None:
        there = 1
    if wanted == "auto":
        return 1 if device.type == "cpu" else there
    if not wanted.isascii() or not wanted.isdecimal() or int(wanted) < 1:
        raise UsageError(f"`devices={wanted}`: give a number of devices, or auto for all GPUs")
    count = int(wanted)
    if count > there and device.type == "cpu":
        raise UsageError(f"`devices={wanted}`: at most {MOST} processes can share the CPU of a machine")
    if count > there:
        kind = "GPU" if device.type == "cuda" else f"{device.type} device"
        only = f"`device={device}` is one device" if device.index is not None else f"this machine has {there} {kind}"
        raise UsageError(f"`devices={wanted}`: {only}{'s' * (there > 1)}; use `devices={there}`, or `device=cpu`")
    return count


def start(command: Sequence[str], processes: Processes) -> int:
    """Run a command in several processes, as torchrun does, and return its exit code.

    The processes get this one's standard output and error. They end when this process does, even if it is killed.
    SIGINT and SIGTERM are passed on to them.

    Args:
        command: program and arguments.
        processes: their number.

    Returns:
        The exit code of the first process if it failed, else that of another one that failed; 128 + N after signal N.

    Raises:
        FgvcError: the other machines did not come, or their address cannot be reached.
    """
    from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous.api import RendezvousError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed.elastic").addHandler(logging.NullHandler())
    _silence("torch.distributed")
    os.environ[PARENT] = str(os.getpid())
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # its warnings of lost connections are stack traces
    # torchrun gives each process one core; without workers, that leaves the others idle
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, usable_cores() // processes.local)))
    config = LaunchConfig(
        processes.nodes,
        processes.nodes,
        processes.local,
        logs_specs=DefaultLogsSpecs(os.devnull),
        run_id="fgvc" if processes.rendezvous else uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint=processes.rendezvous or "localhost:0",
        rdzv_configs={"timeout": WAIT},
        max_restarts=0,
        monitor_interval=POLL,
    )
    if processes.rendezvous:
        logger.info(f"waiting for {processes.nodes} machines at {processes.rendezvous}")
    try:
        elastic_launch(config, command[0])(*command[1:])
    except ChildFailedError as error:
        return _exit_code({rank: failure.exitcode for rank, failure in error.failures.items()})
    except SignalException as stopped:
        return 128 + int(stopped.sigval)
    except (RendezvousError, OSError, RuntimeError) as error:
        where = f"at {processes.rendezvous} within {WAIT // 60} minutes" if processes.rendezvous else "on this machine"
        cause = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FgvcError(f"The {processes.count} processes did not meet {where}: {cause}") from error
    return 0


def _silence(name: str) -> None:
    """Turn off the loggers below a name: the process that fails says why, once."""
    for each in [name, *(known for known in logging.root.manager.loggerDict if known.startswith(f"{name}."))]:
        logging.getLogger(each).disabled = True


def _exit_code(codes: dict[int, int]) -> int:
    """Return the exit code of a failed training from those of its failed processes, by rank; -N: killed by signal N."""
    own = [code for _, code in sorted(codes.items()) if code > 0]
    return own[0] if own else 128 - min(codes.values(), default=-signal.SIGTERM)
