"""Kill the processes of a study at random moments: nothing is lost, and nothing is trained by two at a time.

`FGVC_KILLS=100 pytest -m slow tests/experiments/test_random_kills.py` makes 100 kills per launcher.
"""

from __future__ import annotations

import importlib.util
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from itertools import pairwise

import pytest

from fgvc_cli.experiments.claims import claim_file, latest, read
from fgvc_cli.experiments.folder import new_study

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]
KILLS = int(os.environ.get("FGVC_KILLS", "20"))
CELLS = """
[[cells]]
backbone = "timm/test_resnet"
head = "linear"
optimizer = "sgd"
[[cells]]
backbone = "timm/test_resnet"
head = "linear"
optimizer = "adamw"
"""
LAUNCHERS = {"local": [], "slurm": ["--set", "launcher.cluster=local", "--set", "launcher.gpus=0"]}


def sweep(folder, cached, launcher):
    """Start a process that resumes a study."""
    command = [sys.executable, "-m", "fgvc_cli", "--cache", str(cached), "sweep", "--resume", str(folder.path)]
    given = ["--retry-failed", "--jobs", "2", "--launcher", launcher, *LAUNCHERS[launcher]]
    return subprocess.Popen([*command, *given], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def records_of(folder, run):
    last = latest(folder.claims, run)
    return [read(claim_file(folder.claims, run, number)) for number in range(1, (last.number if last else 0) + 1)]


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_kills(launcher, cached, tiny, tmp_path):
    if launcher == "slurm" and importlib.util.find_spec("submitit") is None:
        pytest.skip("submitit is not installed")
    study, chance = tiny(CELLS, seeds=max(1, KILLS // 8)), random.Random(launcher)
    whole, folder = (new_study(study, tmp_path / name, "demo") for name in ("whole", "killed"))
    runs = [run.name for run in study.runs()]
    program = sweep(whole, cached, "local")
    started, output = time.monotonic(), program.communicate()[0]
    assert program.returncode == 0, output
    seconds, kills = (time.monotonic() - started) / len(runs), 0
    program = sweep(folder, cached, launcher)
    while kills < KILLS and program.poll() is None:
        time.sleep(chance.uniform(0.2, 2.0) * seconds)
        holders = [r.pid for run in runs if (r := folder.record(run)) is not None and not r.ended]
        target = chance.choice([program.pid, *holders])
        with suppress(ProcessLookupError):
            os.kill(target, signal.SIGKILL)
            kills += 1
        if target == program.pid:
            program.communicate()
            program = sweep(folder, cached, launcher)
    output = program.communicate()[0]
    for _ in range(3):  # runs whose worker was killed count as failed until they are retried
        if program.returncode == 0:
            break
        program = sweep(folder, cached, launcher)
        output = program.communicate()[0]
    assert program.returncode == 0, output
    assert kills, "all runs ended before the first kill"
    for run in runs:
        assert whole.run(run).model_file.read_bytes() == folder.run(run).model_file.read_bytes(), run
        records = records_of(folder, run)
        assert records[-1].state == "finished"
        for before, after in pairwise(records):
            assert before.heard <= after.since and before.state != "finished", "two at a time, or twice"
