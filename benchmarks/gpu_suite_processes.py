"""The processes of gpu_suite.py: steps that end in time, and the machine that they run on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError

ROOT = Path(__file__).parents[1]

LEAST_SECONDS = 5.0
"""No step starts with less time left."""
GRACE_SECONDS = 10.0
"""After an interruption a step has this long to save its results."""
OUTPUT_KEPT = 4000
"""Characters of the output of a failed step that are saved."""


FACTS = """
import json, sys
from fgvc_cli.benchmarking.run import machine_facts
from fgvc_cli.devices import pick_device
print(json.dumps(machine_facts(pick_device(sys.argv[1]))))
"""


@dataclass(frozen=True)
class Step:
    """A process that measures: arguments of Python, the file that it writes, and how to read that."""

    name: str
    arguments: Sequence[str]
    result: Path
    read: Callable[[Path], Any]


@dataclass
class Outcome:
    """What became of a step or a part.

    Attributes:
        state: "measured", "stopped" (with what was saved until then), "failed" or "skipped".
        seconds: that it took.
        reason: why it was not measured, or not wholly.
        figures: of a step: its results.
        steps: of a part, by name.
    """

    state: str
    seconds: float = 0.0
    reason: str | None = None
    command: str | None = None
    output: str | None = None
    figures: Any = None
    steps: dict[str, Outcome] = field(default_factory=dict)


def run_step(step: Step, end: float) -> Outcome:
    """Run a process until it ends or the time is over, and read what it has written."""
    start = time.monotonic()
    if end - start < LEAST_SECONDS:
        return Outcome("skipped", reason="no time left")
    print(f"  {step.name} ...", flush=True)
    command = " ".join(["python", *(argument.replace(str(ROOT) + "/", "") for argument in step.arguments)])
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, *step.arguments],
            stdout=log, stderr=subprocess.STDOUT, cwd=ROOT, env=environment(), start_new_session=True,
        )  # fmt: skip
        stopped = wait(process, end - start)
        log.seek(0)
        output_end = log.read().decode("utf-8", errors="replace")[-OUTPUT_KEPT:].strip()
    seconds = time.monotonic() - start
    try:
        figures = step.read(step.result) if step.result.is_file() else None
    except (ValueError, KeyError, ParseError):  # killed while it wrote
        figures = None
    outcome = Outcome("measured", seconds, command=command, figures=figures)
    if stopped:
        outcome.state, outcome.reason = "stopped", f"stopped after {seconds:.0f} s"
    elif process.returncode or figures is None:
        last = next((line for line in reversed(output_end.splitlines()) if line.strip()), "no output")
        outcome.state, outcome.reason, outcome.output = "failed", last.strip()[:200], output_end
    print(
        f"  {step.name}: {outcome.state}, {seconds:.0f} s{f'; {outcome.reason}' if outcome.reason else ''}", flush=True
    )
    return outcome


def wait(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Wait for a process, and return whether it had to be stopped: interrupted first, so that it saves its results."""
    for limit, number in ((seconds, signal.SIGINT), (GRACE_SECONDS, signal.SIGKILL)):
        try:
            process.wait(limit)
            return number is signal.SIGKILL
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, number)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    process.wait()
    return True


def environment() -> dict[str, str]:
    """Return the variables of a step: this checkout, and no hub."""
    paths = [str(ROOT), str(ROOT / "plugins"), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_OFFLINE": "1",
    }


def machine_of(device: str) -> dict[str, Any]:
    """Return device, driver, versions and commit, from a process of its own, as this one must hold no GPU memory.

    Raises:
        SystemExit: there is no such device.
    """
    done = subprocess.run(
        [sys.executable, "-c", FACTS, device], capture_output=True, text=True, env=environment(), check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr.strip().splitlines()[-1].partition(": ")[2])
    return {**json.loads(done.stdout.splitlines()[-1]), "driver": _driver(), "commit": _commit()}


def _driver() -> str | None:
    program = shutil.which("nvidia-smi")
    query = [program or "", "--query-gpu=driver_version", "--format=csv,noheader"]
    if program is None:
        return None
    done = subprocess.run(query, capture_output=True, text=True, check=False)
    return done.stdout.splitlines()[0].strip() if done.returncode == 0 and done.stdout.strip() else None


def _commit() -> str | None:
    command = ["git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD"]
    if shutil.which("git") is None:
        return None
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None
