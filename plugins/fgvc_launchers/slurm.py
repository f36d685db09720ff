"""Train runs as jobs of a Slurm cluster, through submitit."""

from __future__ import annotations

import importlib.util
import math
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from fgvc_cli import FgvcError, UsageError
from fgvc_cli.contracts import Launcher, LaunchRun, LaunchStudy, RunEnded
from fgvc_cli.launch import usable_cores
from fgvc_launchers.children import Child, child_context
from fgvc_launchers.options import SlurmOptions

POLL_SECONDS = 1.0
"""Time between two looks at the results of jobs, which are files in the study folder."""
QUEUE_SECONDS = 20.0
"""Time between two questions to Slurm: only it knows of jobs that were killed."""
SBATCH_SECONDS = 60
JOBS = "jobs"
"""Folder of submitit's files in the study folder."""


class SlurmLauncher(Launcher):
    """Train each run in a job of an array, with submitit; Slurm queues what has no room.

    A job trains in a child process. Shortly before the time limit, and where the cluster announces preemption, it saves
    its state, and the job is requeued; the run then resumes.

    Raises:
        FgvcError: submitit is not installed, this machine does not submit to Slurm, or Slurm refuses the resources.
    """

    def __init__(self, options: SlurmOptions, jobs: int | None, device: str) -> None:
        if importlib.util.find_spec("submitit") is None:
            raise FgvcError(
                "launcher 'slurm' needs a package that is not installed (submitit): pip install \"fgvc-cli[slurm]\""
            )
        self.options, self.jobs = options, jobs
        self._gpus = options.gpus if options.gpus is not None else 0 if device == "cpu" else 1
        self._jobs: dict[str, Any] = {}
        """Jobs that have not ended, by name of the run."""
        self._cancelled: set[str] = set()
        self._due = self._asked = 0.0
        if options.cluster == "slurm":
            _check_slurm(self._sbatch())

    def _sbatch(self) -> list[str]:
        """Return the options of `sbatch` for one job."""
        options, minutes = self.options, self._minutes
        given = {
            "partition": options.partition,
            "account": options.account,
            "qos": options.qos,
            "constraint": options.constraint,
            "exclude": options.exclude,
            "time": minutes,
            "cpus-per-task": options.cpus,
            "gpus-per-node": self._gpus or None,
            "mem": None if options.memory is None else f"{math.ceil(options.memory * 1024)}M",
        }
        return [f"--{name}={value}" for name, value in given.items() if value is not None]

    @property
    def _minutes(self) -> int:
        return max(1, round(self.options.hours * 60))

    @property
    def capacity(self) -> int | None:
        """None, since Slurm has a queue; `jobs` limits the jobs of an array that run at a time."""
        return self.jobs if self.options.cluster == "local" else None

    def start(self, study: LaunchStudy) -> None:
        """Prepare submitit. A job checks the study folder again, since only a job gets to the machines that train.

        Raises:
            FgvcError: the folder cannot be used here.
        """
        import submitit

        if problem := study.check():
            raise FgvcError(problem)
        self._folder, self._modules = study.folder / JOBS, tuple(study.modules)
        self._executor = submitit.AutoExecutor(
            self._folder, cluster=self.options.cluster, slurm_max_num_timeout=self.options.requeues,
            local_max_num_timeout=self.options.requeues,
        )  # fmt: skip
        options = self.options
        self._executor.update_parameters(
            name="fgvc", timeout_min=self._minutes, cpus_per_task=options.cpus, gpus_per_node=self._gpus, nodes=1,
            tasks_per_node=1, **({} if options.memory is None else {"mem_gb": options.memory}),
            slurm_partition=options.partition, slurm_account=options.account, slurm_qos=options.qos,
            slurm_constraint=options.constraint, slurm_exclude=options.exclude, slurm_setup=list(options.setup),
            slurm_array_parallelism=self.jobs or 1000, slurm_signal_delay_s=options.grace,
            local_setup=list(options.setup),
        )  # fmt: skip

    def submit(self, runs: Sequence[LaunchRun]) -> None:
        """Submit an array with a job for each run.

        Raises:
            FgvcError: Slurm refuses it.
        """
        work = [Work(run, self._modules, self.options.cpus) for run in runs]
        try:
            jobs = self._executor.map_array(Work.__call__, work) if len(work) > 1 else [self._executor.submit(work[0])]
        except Exception as error:
            raise FgvcError(f"the jobs could not be submitted: {_line(error)}") from error
        self._jobs |= {run.name: job for run, job in zip(runs, jobs, strict=True)}

    def ended(self, seconds: float) -> list[RunEnded]:
        """Return the runs whose jobs have ended."""
        if time.monotonic() < self._due:
            time.sleep(min(seconds, self._due - time.monotonic()))
            return []
        started = time.monotonic()
        if self.options.cluster == "slurm" and started - self._asked > QUEUE_SECONDS and self._jobs:
            self._asked = started
            next(iter(self._jobs.values())).watcher.update()
        found = [RunEnded(name, self._problem(name, job)) for name, job in self._jobs.items() if job.done()]
        for each in found:
            del self._jobs[each.name]
        looked = time.monotonic() - started
        self._due = time.monotonic() + max(0.0 if found else POLL_SECONDS, 10 * looked)
        return found

    def _problem(self, name: str, job: Any) -> str:
        from submitit.core.utils import UncompletedJobError

        try:
            problem = job.result()
        except UncompletedJobError as error:
            if name in self._cancelled:
                return ""
            log = job.paths.stderr
            if not log.exists():
                return f"job {job.job_id} ended ({job.state}) and left no log; do the nodes see {self._folder}?"
            return f"job {job.job_id} ended without a result ({job.state}): {_line(error)}; log: {log}"
        except Exception as error:
            return f"job {job.job_id} failed: {_last(error)}; log: {job.paths.stderr}"
        return str(problem)

    def cancel(self, names: Collection[str]) -> None:
        """Cancel jobs: Slurm sends SIGTERM, and waits half a minute before it kills."""
        for name in names:
            if name in self._jobs:
                self._cancelled.add(name)
                self._jobs[name].cancel(check=False)
        self._asked = 0.0

    def close(self) -> None:
        """Cancel what has not ended."""
        self.cancel(list(self._jobs))
        self._jobs.clear()


@dataclass
class Work:
    """What a job does: train a run in a child, which is made to save its state before the job is requeued."""

    run: LaunchRun
    modules: Sequence[str]
    threads: int
    child: Child | None = field(default=None, init=False)

    def __call__(self) -> str:
        """Return what kept the run from ending properly."""
        signal.signal(signal.SIGTERM, lambda *_: self._stop())
        threads = min(self.threads, usable_cores())
        self.child = Child(child_context(self.modules), self.run.name, self.run.work, threads, os.environ)
        return self.child.problem_at_end()

    def checkpoint(self) -> Any:
        """Make the run save its state; return what to do after the job is requeued (submitit's protocol)."""
        import submitit

        self._stop()
        if self.child is not None:
            self.child.problem_at_end()
        return submitit.helpers.DelayedSubmission(Work(self.run, self.modules, self.threads))

    def _stop(self) -> None:
        if self.child is not None:
            self.child.signal(signal.SIGTERM)


def _check_slurm(arguments: Sequence[str]) -> None:
    """Ask Slurm whether it would ever run a job with these options.

    Raises:
        FgvcError: there is no Slurm here, it does not answer, or it refuses.
    """
    if shutil.which("sbatch") is None:
        raise FgvcError(
            "launcher 'slurm': this machine has no sbatch; start the study on a login node of the cluster, or try the "
            "settings here with `launcher.cluster=local`"
        )
    try:
        asked = subprocess.run(
            ["sbatch", "--test-only", *arguments, "--wrap=true"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise FgvcError(
            "launcher 'slurm': the cluster cannot be reached: sbatch does not answer within 60 s"
        ) from error
    if asked.returncode:
        said = " ".join(asked.stderr.split()).replace("sbatch: error: ", "") or "no reason given"
        raise UsageError(f"Slurm refuses the resources ({' '.join(arguments)}): {said}")


def _line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _last(error: BaseException) -> str:
    """Return the error itself from the traceback that submitit passes on as a text."""
    lines = [line.strip() for line in str(error).partition("You can check")[0].splitlines()]
    lines = [line for line in lines if line.strip("-")]
    return lines[-1] if lines else type(error).__name__
