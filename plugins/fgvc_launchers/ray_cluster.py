"""Train runs on a Ray cluster, as Ray Core tasks."""

from __future__ import annotations

import importlib.util
import logging
import os
import socket
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from fgvc_cli import FgvcError, UsageError
from fgvc_cli.contracts import Launcher, LaunchRun, LaunchStudy, RunEnded
from fgvc_cli.errors import cause_of
from fgvc_launchers.children import Child, child_context
from fgvc_launchers.options import RayOptions

CONNECT_SECONDS = 10.0
CHECK_SECONDS = 120.0
"""Time that each machine has to import fgvc and look at the study folder."""
GB = 1 << 30
OBJECT_STORE_BYTES = 100 << 20
"""Memory of a Ray that is started here: runs exchange files, not objects."""


class RayLauncher(Launcher):
    """Train each run in a Ray task, which reserves CPU cores, GPUs and memory; Ray queues what has no room.

    A task trains in a process of its own, forked from one that keeps the imported modules as long as its Ray worker
    lives. If a worker or a machine is lost, Ray starts the task again, and the run resumes.

    Raises:
        FgvcError: Ray is not installed, the cluster cannot be reached, or none of its machines has the resources.
    """

    def __init__(self, options: RayOptions, jobs: int | None, device: str) -> None:
        if importlib.util.find_spec("ray") is None:
            raise FgvcError("launcher 'ray' needs a package that is not installed (ray): pip install \"fgvc-cli[ray]\"")
        self.options, self.jobs = options, jobs
        self._tasks: dict[Any, str] = {}
        """Names of the runs that have not ended, by reference of their result."""
        _connect(options.address)
        self._resources = self._needed(device)
        self._machines = self._with_room()

    def _needed(self, device: str) -> dict[str, float]:
        import ray

        gpus = self.options.gpus
        if gpus is None:
            gpus = 1.0 if device != "cpu" and ray.cluster_resources().get("GPU") else 0.0
        memory = self.options.memory
        return {"CPU": self.options.cpus, "GPU": gpus, "memory": 0.0 if memory is None else memory * GB}

    def _with_room(self) -> list[Mapping[str, Any]]:
        """Return the machines that have the resources of a run, busy or not."""
        import ray

        alive = [node for node in ray.nodes() if node["Alive"]]
        options = {"CPU": "cpus", "GPU": "gpus", "memory": "memory"}
        for name, wanted in self._resources.items():
            most = max((node["Resources"].get(name, 0.0) for node in alive), default=0.0)
            if most < wanted:
                unit = GB if name == "memory" else 1
                ray.shutdown()
                raise UsageError(
                    f"`launcher.{options[name]}={wanted / unit:g}`: no machine of the Ray cluster has as much; the "
                    f"most is {most / unit:.3g}"
                )
        has_room = [n for n in alive if all(n["Resources"].get(k, 0.0) >= v for k, v in self._resources.items())]
        if not has_room:
            ray.shutdown()
            raise UsageError("no machine of the Ray cluster has all of `launcher.cpus`, `launcher.gpus` and "
                             "`launcher.memory`")  # fmt: skip
        return has_room

    @property
    def capacity(self) -> int | None:
        """What `jobs` says; without it, Ray has a queue."""
        return self.jobs

    def start(self, study: LaunchStudy) -> None:
        """Check on each machine that it sees the study folder.

        Raises:
            FgvcError: one does not, or cannot import fgvc.
        """
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self._modules = tuple(study.modules)
        looking = ray.remote(max_retries=0, num_cpus=0)(look)
        checks = {
            looking.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(
                study
            ): node
            for node in self._machines
        }
        _, late = ray.wait(list(checks), num_returns=len(checks), timeout=CHECK_SECONDS)
        for result, node in checks.items():
            name = node["NodeManagerHostname"]
            if result in late:
                raise FgvcError(f"Ray's machine {name} does not answer within {CHECK_SECONDS:.0f} s")
            try:
                problem = ray.get(result)
            except Exception as error:
                raise FgvcError(f"Ray's machine {name} cannot run fgvc: {_line(error)}") from error
            if problem:
                raise FgvcError(problem)

    def submit(self, runs: Sequence[LaunchRun]) -> None:
        """Create a task for each run."""
        import ray

        task = ray.remote(
            max_retries=self.options.retries,
            num_cpus=self._resources["CPU"],
            num_gpus=self._resources["GPU"],
            memory=int(self._resources["memory"]) or None,
        )(train)
        for run in runs:
            threads = max(1, int(self.options.cpus))
            self._tasks[task.options(name=run.name).remote(run, self._modules, threads)] = run.name

    def ended(self, seconds: float) -> list[RunEnded]:
        """Return the runs whose tasks have ended.

        Raises:
            FgvcError: the connection to the cluster is lost.
        """
        import ray

        if not self._tasks:
            time.sleep(seconds)
            return []
        with _errors_in_one_line():
            ray.wait(list(self._tasks), num_returns=1, timeout=seconds)
            ready, _ = ray.wait(list(self._tasks), num_returns=len(self._tasks), timeout=0)
            return [RunEnded(self._tasks.pop(task), _problem(task)) for task in ready]

    def cancel(self, names: Collection[str]) -> None:
        """Interrupt the tasks: those that run make their process save its state."""
        import ray

        for task, name in self._tasks.items():
            if name in names:
                ray.cancel(task, recursive=False)

    def close(self) -> None:
        """Cancel what has not ended, and disconnect."""
        import ray

        if self._tasks and ray.is_initialized():
            self.cancel(list(self._tasks.values()))
            ray.wait(list(self._tasks), num_returns=len(self._tasks), timeout=CONNECT_SECONDS)
        self._tasks.clear()
        ray.shutdown()


def look(study: LaunchStudy) -> str:
    """Check the study folder on a machine of the cluster."""
    return study.check()


def train(run: LaunchRun, modules: Sequence[str], threads: int) -> str:
    """Train a run in a child of a Ray worker, and return what kept it from ending properly."""
    # Ray interrupts a task that is cancelled.
    return Child(child_context(modules), run.name, run.work, threads, os.environ).problem_at_end()


def _connect(address: str) -> None:
    """Connect to a cluster, or start one on this machine.

    Raises:
        FgvcError: there is none, or it does not answer.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if address not in ("auto", "local"):
        _check_port(address)
    import ray

    given: dict[str, Any] = {}
    if address == "local":
        given = {"include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **given)
    except ConnectionError as error:
        raise FgvcError(
            "no Ray cluster is running on this machine; start one (ray start --head), or name its "
            "`launcher.address=HOST:PORT`"
            if address == "auto"
            else f"`launcher.address={address}`: {_line(error)}"
        ) from error
    except Exception as error:
        raise FgvcError(f"`launcher.address={address}`: {_line(error)}") from error


def _check_port(address: str) -> None:
    """Raise an error unless something listens at an address: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise UsageError(f"`launcher.address={address}`: expected auto, local, HOST:PORT or ray://HOST:PORT")
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise FgvcError(
            f"`launcher.address={address}`: the Ray cluster cannot be reached ({error.strerror or error})"
        ) from error


def _problem(task: Any) -> str:
    import ray
    from ray import exceptions

    try:
        problem: str = ray.get(task)
    except exceptions.TaskCancelledError:
        return ""
    except exceptions.RayTaskError as error:
        return cause_of(error.cause)
    except exceptions.RayError as error:
        return _line(error)
    return problem


def _line(error: BaseException) -> str:
    """Return the first line of an error of Ray, whose messages have many."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


@contextmanager
def _errors_in_one_line() -> Iterator[None]:
    from ray import exceptions

    try:
        yield
    except (exceptions.RayError, ConnectionError) as error:
        raise FgvcError(f"the connection to the Ray cluster is lost: {_line(error)}") from error
