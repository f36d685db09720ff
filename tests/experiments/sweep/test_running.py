"""Studies as they run: what ends a run ends no study, and what ends a study can go on."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from fgvc_cli.errors import FgvcError
from fgvc_cli.experiments.folder import StudyFolder, find_study, new_study
from fgvc_cli.experiments.running import Means, run_study
from fgvc_cli.experiments.study import Study
from fgvc_cli.experiments.worker import Failed
from fgvc_cli.experiments.worker_pool import WorkerPool
from fgvc_cli.registry import get_registry
from fgvc_cli.training.state import Interrupted

THREE = """
[[cells]]
backbone = "timm/test_resnet"
head = ["linear", { name = "pim", fpn_size = 8, num_selects = 4 }]
optimizer = "sgd"
[[cells]]
name = "hopeless"
backbone = "timm/test_resnet"
head = "linear"
optimizer = { name = "sgd", lr = 1e30 }
train = { clip_norm = 0.0, warmup_epochs = 0 }
"""
LINEAR, PIM, HOPELESS = "timm-test_resnet-linear-sgd-seed0", "timm-test_resnet-pim-sgd-seed0", "hopeless-seed0"


class Seen:
    """A view that remembers, and does something when a run has come to a share."""

    def __init__(self, at: float = 2.0, do=None):
        self.done, self.failures, self.shares, self.left, self.at, self.do = [], {}, [], [], at, do

    def planned(self, done, of):
        self.of = (done, of)

    def begun(self, run, event):
        self.begun_at = (run.name, event.done)

    def moved(self, at_work, left):
        self.shares += [moved.share for moved in at_work.values()]
        self.left.append(left)
        if self.do is not None and any(moved.share >= self.at for moved in at_work.values()):
            do, self.do = self.do, None
            do()

    def finished(self, run, summary, seconds, left):
        self.done.append(run.name)

    def failed(self, run, reason):
        self.failures[run.name] = reason


def run(folder: StudyFolder, study: Study, view: Seen, jobs: int = 1, again: bool = False):
    return run_study(folder, study, Means(jobs), get_registry(), view, again)


def weights(folder: StudyFolder, name: str) -> bytes:
    return folder.run(name).model_file.read_bytes()


@pytest.fixture
def folder_of(tmp_path):
    return lambda study, name="study": new_study(study, tmp_path / name, "demo")


def test_a_study_is_interrupted_and_goes_on_and_what_fails_is_told(cached, tiny, folder_of):
    study = tiny(THREE)
    whole = folder_of(study, "whole")
    seen = Seen()
    outcome = run(whole, study, seen, jobs=2)
    assert outcome.finished == (LINEAR, PIM) and list(outcome.failed) == [HOPELESS]
    assert "not finite" in outcome.failed[HOPELESS] and seen.failures == outcome.failed
    assert {name: whole.state(name) for name in (LINEAR, HOPELESS)} == {LINEAR: "finished", HOPELESS: "failed"}
    assert sorted(seen.done) == sorted(outcome.finished) and 0 < max(seen.shares) <= 1

    again = Seen()
    assert run(whole, study, again) == outcome
    assert again.of == (3, 3) and not again.done, "nothing is done twice"

    stopped = folder_of(study, "stopped")
    seen = Seen(0.3, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(Interrupted, match=f"fgvc sweep --resume {stopped.path}") as interrupted:
        run(stopped, study, seen)
    assert interrupted.value.exit_code == 130 and stopped.state(LINEAR) == "begun"
    assert not multiprocessing.active_children()

    assert run(stopped, study, Seen()).finished == outcome.finished
    for name in outcome.finished:
        assert weights(stopped, name) == weights(whole, name), "bit for bit, however it came about"


def test_a_run_whose_process_is_killed_is_a_failure_and_is_tried_again_when_asked(cached, tiny, folder_of):
    study = tiny(THREE.partition("[[cells]]\nname")[0].replace(', { name = "pim", fpn_size = 8, num_selects = 4 }', ""))
    folder = folder_of(study)

    def kill():
        (child,) = multiprocessing.active_children()
        os.kill(child.pid, signal.SIGKILL)

    outcome = run(folder, study, Seen(0.05, kill))
    assert outcome.failed == {LINEAR: "its process was ended by SIGKILL: was memory short?"}
    assert run(folder, study, Seen()).failed == outcome.failed, "it would only fail again"
    assert run(folder, study, Seen(), again=True).finished == (LINEAR,)
    assert folder.failures() == {}


class FullDisk(WorkerPool):
    """Has each run end as one does for which there is no room."""

    def start(self, name, task, place):
        self.begun = [name]

    @property
    def busy(self):
        return False

    def events(self, seconds):
        reason = "No space left to write model.safetensors: free some, or choose another disk."
        return ((name, Failed(reason)) for name in self.begun)


def test_a_full_disk_ends_the_study_and_fails_no_run(tiny, folder_of, monkeypatch):
    monkeypatch.setattr("fgvc_cli.experiments.running.Crew", FullDisk)
    study = tiny(THREE)
    folder = folder_of(study, "a study")
    with pytest.raises(FgvcError, match=r"^No space left .* Then go on with: fgvc sweep --resume '.*a study'$"):
        run(folder, study, Seen())
    assert folder.failures() == {} and folder.state(PIM) == "waiting"


def test_two_cannot_work_on_one_study(tiny, folder_of):
    study = tiny(THREE)
    folder = folder_of(study)
    with folder.worked_on(), pytest.raises(FgvcError, match="Another fgvc sweep is at work"):
        run(folder, study, Seen())


def test_each_of_several_gets_its_share_of_the_machine(monkeypatch):
    monkeypatch.setattr("fgvc_cli.experiments.running.usable_cores", lambda: 8)
    assert Means(1).share(0) == (None, {}) and Means(3).share(2) == (2, {}) and Means(20).share(0) == (1, {})
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-abc")
    shown = [Means(3, "cuda").share(place) for place in range(3)]
    assert shown == [(None, {"CUDA_VISIBLE_DEVICES": gpu}) for gpu in ("3", "GPU-abc", "3")]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert [Means(2, "cuda").share(place)[1]["CUDA_VISIBLE_DEVICES"] for place in range(2)] == ["0", "1"]


def test_what_a_run_prints_is_in_its_log(cached, tiny, folder_of, capfd):
    study = tiny(THREE.replace('"linear", ', "").partition("[[cells]]\nname")[0])
    folder = folder_of(study)
    run(folder, study, Seen())
    log = folder.log(PIM).read_text()
    assert "timm/test_resnet + pim" in log and "epoch 2: " in log and "test_resnet" not in capfd.readouterr().out


def test_a_damaged_list_of_failures_is_told(tiny, folder_of):
    folder = folder_of(tiny(THREE))
    for damaged in (json.dumps([{"name": "x"}]), "[{"):
        (folder.path / "failed.json").write_text(damaged)
        with pytest.raises(FgvcError, match="delete it, and failed runs are tried again"):
            folder.failures()


def test_a_finished_run_with_a_damaged_summary_keeps_no_other_from_its_turn(tiny, folder_of):
    study = tiny(THREE)
    folder = folder_of(study)
    for planned, summary in zip(study.runs(), ("[]", "{}", "{"), strict=True):
        folder.run(planned.name).path.mkdir(parents=True)
        folder.run(planned.name).summary_file.write_text(summary)
        folder.run(planned.name).model_file.write_bytes(b"")
    seen = Seen()
    assert len(run(folder, study, seen).finished) == 3 and seen.of == (3, 3)


def test_folders_of_studies(tiny, tmp_path):
    study = tiny(THREE)
    folder = new_study(study, tmp_path / "a", "demo")
    assert find_study(folder.path).path == find_study(folder.study_file).path == folder.path
    with pytest.raises(FgvcError, match="go on with the study in it: fgvc sweep --resume"):
        new_study(study, folder.path, "demo")
    with pytest.raises(FgvcError, match=r"there is no such folder"):
        find_study(tmp_path / "none")
    with pytest.raises(FgvcError, match=r"has no study\.toml"):
        find_study(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM])
def test_a_study_whose_program_is_ended_leaves_no_process_and_goes_on(ending, cached, tiny, tmp_path, folder_of):
    """As a person would see it: the whole program, killed from outside."""
    import subprocess
    import sys

    study = tiny(THREE)
    folder = folder_of(study)
    command = [sys.executable, "-m", "fgvc_cli", "--cache", str(cached), "sweep", "--resume", str(folder.path)]
    program = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    _wait_for(lambda: folder.state(LINEAR) in ("begun", "finished"))
    program.send_signal(ending)
    said = program.communicate(timeout=60)[1]
    _wait_for(lambda: not _at_work(folder.path))
    assert program.returncode == (-9 if ending == signal.SIGKILL else 143), said
    assert "Traceback" not in said
    assert run(folder, study, Seen()).finished == (LINEAR, PIM)


def _wait_for(true, seconds: float = 90.0) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until
        time.sleep(0.1)


def _at_work(study: Path) -> bool:
    """Say whether any process still has a file of the study open, or was started for it."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            opened = [str(link.readlink()) for link in (process / "fd").iterdir()]
        except OSError:
            continue
        if int(process.name) != os.getpid() and any(path.startswith(str(study)) for path in opened):
            return True
    return False
