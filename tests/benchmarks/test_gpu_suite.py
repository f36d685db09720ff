"""The suite for a GPU: time limits, results of processes that end early, and, on the CPU with tiny sizes, all of it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
MACHINE = {
    **{"device_name": "Some GPU", "driver": "1.0", "cuda": "13.0", "commit": "abc", "date": "today"},
    **dict.fromkeys(("torch", "torchvision", "timm", "python", "fgvc"), "1.2"),
}


@pytest.fixture
def suite(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import gpu_suite
    import gpu_suite_processes

    for module in (gpu_suite, gpu_suite_processes):
        monkeypatch.setattr(module, "LEAST_SECONDS", 0.01)
        monkeypatch.setattr(module, "GRACE_SECONDS", 0.2)
    monkeypatch.setattr(gpu_suite, "machine_of", lambda _: MACHINE)
    return gpu_suite


def step_of(folder: Path, program: str):
    result = folder / "x.json"
    from gpu_suite_processes import Step

    return Step("one", ["-c", program, str(result)], result, lambda path: json.loads(path.read_text()))


def test_a_step_that_is_interrupted_keeps_what_it_saved(suite, tmp_path, monkeypatch):
    monkeypatch.setattr("gpu_suite_processes.GRACE_SECONDS", 20)
    program = (
        "import sys, time, pathlib\ntry: time.sleep(60)\n"
        "except KeyboardInterrupt: pathlib.Path(sys.argv[1]).write_text('[1]'); sys.exit(130)"
    )
    outcome = suite.run_step(step_of(tmp_path, program), time.monotonic() + 2)
    assert (outcome.state, outcome.figures) == ("stopped", [1]) and "stopped after" in outcome.reason


def test_a_step_that_ignores_interrupts_is_killed_with_its_children(suite, tmp_path):
    child = "import time; time.sleep(60)"
    program = (
        "import pathlib, signal, subprocess, sys, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}])\n"
        "pathlib.Path(sys.argv[1]).write_text(str(child.pid))\ntime.sleep(60)"
    )
    outcome = suite.run_step(step_of(tmp_path, program), time.monotonic() + 2)
    assert outcome.state == "stopped" and outcome.seconds < 30
    end, status = time.monotonic() + 20, Path(f"/proc/{outcome.figures}/stat")
    while status.exists() and status.read_text().split()[2] != "Z" and time.monotonic() < end:
        time.sleep(0.05)
    assert not status.exists() or status.read_text().split()[2] == "Z"


@pytest.mark.parametrize(
    ("program", "reason"), [("raise SystemExit('no such model')", "no such model"), ("", "no output")]
)
def test_a_step_that_fails_says_why(suite, tmp_path, program, reason):
    outcome = suite.run_step(step_of(tmp_path, program), time.monotonic() + 60)
    assert (outcome.state, outcome.reason) == ("failed", reason)


def test_parts_share_the_time_skip_with_a_reason_and_add_to_an_earlier_run(suite, tmp_path, monkeypatch, capsys):
    def one(program):
        return lambda made: [step_of(made.scratch, program)]

    works = "import sys, pathlib; pathlib.Path(sys.argv[1]).write_text('{}')"
    parts = {
        "quick": suite.Part(one(works), 1),
        "absent": suite.Part(one(works), 1, ("no_such_package",)),
        "slow": suite.Part(one("import time; time.sleep(60)"), 1),
        "broken": suite.Part(lambda made: 1 / 0, 98),
    }
    monkeypatch.setattr(suite, "PARTS", parts)
    folder = tmp_path / "out"

    def run(*options: str) -> tuple[int, dict]:
        code = suite.main(["--out", str(folder), *options])
        return code, json.loads((folder / "gpu_suite.json").read_text())["parts"]

    code, found = run("--minutes", "2")
    assert code == 1 and {name: part["state"] for name, part in found.items()} == {
        "quick": "measured", "absent": "skipped", "slow": "stopped", "broken": "failed",
    }  # fmt: skip
    assert "no_such_package" in found["absent"]["reason"] and "ZeroDivisionError" in found["broken"]["reason"]
    code, again = run("--parts", "quick", "absent", "--minutes", "0")
    assert code == 0 and again == found  # nothing is lost, and nothing was measured
    text = (folder / "gpu_suite.md").read_text()
    assert all(word in text for word in ("Some GPU", "Driver 1.0", "no_such_package", "abc"))
    monkeypatch.setattr(suite, "machine_of", lambda _: {**MACHINE, "driver": "2.0"})
    assert run("--parts", "quick")[1].keys() == {"quick"}  # of another driver


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_everything_runs_on_the_cpu_with_tiny_sizes(tmp_path):
    command = [sys.executable, str(BENCHMARKS / "gpu_suite.py"), "--device", "cpu", "--minutes", "20"]
    done = subprocess.run([*command, "--out", str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    parts = json.loads((tmp_path / "gpu_suite.json").read_text())["parts"]
    states = {name: part["state"] for name, part in parts.items()}
    assert set(states.values()) <= {"measured", "skipped"}, parts
    skipped = [name for name, state in states.items() if state == "skipped"]
    assert all("is not installed" in parts[name]["reason"] for name in skipped)
    (tests,) = (step["figures"] for step in parts["tests"]["steps"].values())
    assert tests["tests"] == tests["skipped"] > 10  # no CUDA device
    text = (tmp_path / "gpu_suite.md").read_text()
    assert all(f"## {name}" in text for name in states if name not in skipped)
