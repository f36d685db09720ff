"""Training a study: a failing run does not stop the others, and an interrupted study resumes."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fgvc_cli.contracts import Launcher, RunEnded
from fgvc_cli.errors import FgvcError
from fgvc_cli.experiments.folder import StudyFolder, find_study, new_study
from fgvc_cli.experiments.launching import LaunchRequest
from fgvc_cli.experiments.planning import resolve_combinations
from fgvc_cli.experiments.scheduler import Eta, RunOptions, SweepResult, run_study
from fgvc_cli.experiments.study import Study
from fgvc_cli.experiments.sweep import Sweep
from fgvc_cli.registry import get_registry
from fgvc_cli.training.state import Interrupted

LINEAR_CELL = """
[[cells]]
backbone = "timm/test_resnet"
head = "linear"
optimizer = "sgd"
"""
THREE_CELLS = f"""
{LINEAR_CELL}
[[cells]]
backbone = "timm/test_resnet"
head = {{ name = "pim", fpn_size = 8, num_selects = 4 }}
optimizer = "sgd"
[[cells]]
name = "diverging"
backbone = "timm/test_resnet"
head = "linear"
optimizer = {{ name = "sgd", lr = 1e30 }}
train = {{ clip_norm = 0.0, warmup_epochs = 0 }}
"""
LINEAR, PIM, DIVERGING = "timm-test_resnet-linear-sgd-seed0", "timm-test_resnet-pim-sgd-seed0", "diverging-seed0"


class Recorder:
    """A callback that records events, and calls a function once a run has reached a fraction."""

    def __init__(self, at: float = 2.0, call=None):
        self.done, self.failures, self.fractions, self.at, self.call = [], {}, [], at, call

    def planned(self, done, total):
        self.planned_runs = (done, total)

    def started(self, run, epochs, done): ...

    def progressed(self, active, left):
        self.fractions += [progress.fraction for progress in active.values()]
        if self.call is not None and any(progress.fraction >= self.at for progress in active.values()):
            call, self.call = self.call, None
            call()

    def finished(self, run, summary, seconds, left):
        self.done.append(run.name)

    def pruned(self, run, epochs): ...

    def failed(self, run, reason):
        self.failures[run.name] = reason


def train(folder: StudyFolder, study: Study, recorder: Recorder, jobs: int = 1, retry_failed: bool = False, by=None):
    registry = get_registry()
    launcher = by or LaunchRequest(jobs=jobs).connect("cpu", registry)
    return run_study(folder, study, launcher, registry, recorder, RunOptions(), retry_failed)


@pytest.fixture
def folder_of(tmp_path):
    return lambda study, name="study": new_study(study, tmp_path / name, "demo")


def test_failing_and_interrupted_runs(cached, tiny, folder_of, capfd):
    study = tiny(THREE_CELLS)
    whole = folder_of(study, "whole")
    recorder = Recorder()
    result = train(whole, study, recorder, jobs=2)
    assert result.finished == (LINEAR, PIM) and list(result.failed) == [DIVERGING]
    assert "not finite" in result.failed[DIVERGING] and recorder.failures == result.failed
    assert {name: whole.state(name) for name in (LINEAR, DIVERGING)} == {LINEAR: "finished", DIVERGING: "failed"}
    assert sorted(recorder.done) == sorted(result.finished) and 0 < max(recorder.fractions) <= 1
    log = whole.log(PIM).read_text()
    assert "timm/test_resnet + pim" in log and "epoch 2: " in log and "test_resnet" not in capfd.readouterr().out

    again = Recorder()
    assert train(whole, study, again) == result and again.planned_runs == (3, 3) and not again.done

    study = tiny(LINEAR_CELL)
    stopped = folder_of(study, "stopped")
    recorder = Recorder(0.3, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(Interrupted) as interrupted:
        train(stopped, study, recorder)
    assert (interrupted.value.exit_code, interrupted.value.run) == (130, stopped.path)
    assert stopped.state(LINEAR) == "started"
    assert not multiprocessing.active_children()

    assert train(stopped, study, Recorder()).finished == (LINEAR,)
    files = [folder.run(LINEAR).model_file.read_bytes() for folder in (stopped, whole)]
    assert files[0] == files[1], "resuming is bit for bit"


def test_a_killed_worker_fails_its_run_which_is_retried_on_request(cached, tiny, folder_of):
    study = tiny(LINEAR_CELL)
    folder = folder_of(study)

    def kill():
        (child,) = multiprocessing.active_children()
        os.kill(child.pid, signal.SIGKILL)

    result = train(folder, study, Recorder(0.05, kill))
    assert "SIGKILL" in result.failed[LINEAR] and "memory" in result.failed[LINEAR]
    assert train(folder, study, Recorder()).failed == result.failed, "it is not retried by default"
    assert train(folder, study, Recorder(), retry_failed=True).finished == (LINEAR,)
    assert folder.failures() == {}


class Fake(Launcher):
    """A launcher whose runs end at once, as a function of their name says."""

    capacity = 2

    def __init__(self, end):
        self.end, self.names = end, []

    def start(self, study):
        assert study.check() == ""

    def submit(self, runs):
        self.names += [run.name for run in runs]

    def ended(self, seconds):
        names, self.names = self.names, []
        return [RunEnded(name, self.end(name)) for name in names]

    def cancel(self, names): ...

    def close(self): ...


def test_a_full_disk_stops_the_study_and_fails_no_run(tiny, folder_of):
    study = tiny(THREE_CELLS)
    folder = folder_of(study, "a study")
    with pytest.raises(FgvcError, match=r"No space left .*`resume=.*a study`"):
        train(folder, study, Recorder(), by=Fake(lambda _: "No space left to write model.safetensors"))
    assert folder.failures() == {} and folder.state(PIM) == "waiting"


def test_two_processes_cannot_train_one_study(tiny, folder_of):
    study = tiny(THREE_CELLS)
    folder = folder_of(study)
    with folder.locked(), pytest.raises(FgvcError, match="Another process is training"):
        train(folder, study, Recorder())


def test_without_a_finished_run_the_first_reason_is_told(tiny, folder_of, monkeypatch):
    study = tiny(LINEAR_CELL)
    result = SweepResult((), {LINEAR: "no memory"})
    monkeypatch.setattr("fgvc_cli.experiments.sweep.run_study", lambda *_: result)
    sweep = Sweep(study, resolve_combinations(study, get_registry()), get_registry())
    with pytest.raises(FgvcError, match=f"{LINEAR}: no memory"):
        sweep.train(folder_of(study), Fake(str), Recorder(), RunOptions())


def test_a_damaged_list_of_failures_is_named(tiny, folder_of):
    folder = folder_of(tiny(THREE_CELLS))
    for damaged in (json.dumps([{"name": "x"}]), "[{"):
        folder.failures_file.write_text(damaged)
        with pytest.raises(FgvcError, match=r"failed\.json"):
            folder.failures()


def test_damaged_summaries_do_not_stop_the_study(tiny, folder_of):
    study = tiny(THREE_CELLS)
    folder = folder_of(study)
    for planned, summary in zip(study.runs(), ("[]", "{}", "{"), strict=True):
        folder.run(planned.name).path.mkdir(parents=True)
        folder.run(planned.name).summary_file.write_text(summary)
        folder.run(planned.name).model_file.write_bytes(b"")
    recorder = Recorder()
    assert len(train(folder, study, recorder).finished) == 3 and recorder.planned_runs == (3, 3)


def test_study_folders(tiny, tmp_path):
    study = tiny(THREE_CELLS)
    folder = new_study(study, tmp_path / "a", "demo")
    assert find_study(folder.path).path == find_study(folder.study_file).path == folder.path
    with pytest.raises(FgvcError, match=f"`resume={folder.path}`"):
        new_study(study, folder.path, "demo")
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(FgvcError, match=str(path)):
            find_study(path)


def test_a_started_run_keeps_its_settings_when_the_study_is_edited(tiny, tmp_path):
    cell = LINEAR_CELL.replace('"sgd"', '{ name = "sam", base = "sgd", rho = 0.1 }') + 'name = "one"'
    study = tiny(cell, seeds=2)
    folder = new_study(study, tmp_path / "study", "demo")
    configs = resolve_combinations(study, get_registry())
    folder.run("one-seed1").path.mkdir(parents=True)
    folder.run("one-seed1").config_file.write_text(configs[0].as_toml())
    assert Sweep(study, configs, get_registry(), folder).changed_settings() == []

    edited = tiny(cell.replace("0.1", "0.2").replace('"linear"', '{ name = "linear", dropout = 0.5 }'), seeds=2)
    configs = resolve_combinations(edited, get_registry())
    (line,) = Sweep(edited, configs, get_registry(), folder).changed_settings()
    assert line.startswith("one-seed1: already started with other settings, keeping those: ")
    assert "head.dropout 0.0 (study: 0.5), optimizer.rho 0.1 (study: 0.2)" in line


class TestEta:
    def test_other_seeds_take_as_long_and_unknown_combinations_the_mean(self):
        eta = Eta()
        eta.add("a", 100.0)
        eta.add("b", 300.0)
        assert eta.left(["a", "b"], {}, 1) == 400.0 and eta.left(["c"], {}, 1) == 200.0
        eta.add("a", 200.0)
        assert eta.left(["a"], {}, 1) == 150.0

    def test_an_active_run_is_estimated_from_its_own_speed(self):
        assert Eta().left(["b"], {"r": ("a", 30.0, 0.25)}, 1) == pytest.approx(90.0 + 120.0)
        eta = Eta({"a": [1000.0]})
        assert eta.left([], {"r": ("a", 30.0, 0.5)}, 1) == pytest.approx(30.0)
        assert eta.left([], {"r": ("a", 1.0, 0.0)}, 1) == pytest.approx(1000.0), "it has just started"

    def test_several_runs_at_a_time(self):
        eta = Eta({"a": [100.0]})
        assert eta.left(["a", "a", "a", "a"], {}, 2) == 200.0
        assert eta.left([], {"r": ("a", 10.0, 0.1), "s": ("a", 99.0, 0.99)}, 2) == pytest.approx(90.0)


@pytest.mark.slow
@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_program_leaves_no_process_and_resumes(ending, cached, tiny, folder_of):
    study = tiny(THREE_CELLS)
    folder = folder_of(study)
    command = [sys.executable, "-m", "fgvc_cli", "--cache", str(cached), "sweep", "--resume", str(folder.path)]
    program = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    _wait_for(lambda: folder.state(LINEAR) in ("started", "finished"))
    program.send_signal(ending)
    printed = program.communicate(timeout=60)[1]
    _wait_for(lambda: not _is_used(folder.path))
    assert program.returncode == (-9 if ending == signal.SIGKILL else 143), printed
    assert "Traceback" not in printed
    assert train(folder, study, Recorder()).finished == (LINEAR, PIM)


def _wait_for(condition, seconds: float = 90.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.1)


def _is_used(study: Path) -> bool:
    """Return whether another process has a file of the study open."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            opened = [str(link.readlink()) for link in (process / "fd").iterdir()]
        except OSError:
            continue
        if int(process.name) != os.getpid() and any(path.startswith(str(study)) for path in opened):
            return True
    return False
