"""A worker next to one that a killed study has left running on the same run."""

from __future__ import annotations

import json
import multiprocessing
from types import SimpleNamespace

import pytest

from fgvc_cli import settings
from fgvc_cli.experiments import worker
from fgvc_cli.experiments.worker import Failed, Finished
from fgvc_cli.files import locked
from fgvc_cli.runs.folder import check_out
from fgvc_cli.testing.tracker import summary_of


@pytest.fixture
def last_event(tmp_path, monkeypatch):
    """A function that runs a task in this process and returns its last event."""
    monkeypatch.setattr(worker, "LOCK_SECONDS", 0.0)
    events = multiprocessing.Pipe(duplex=False)[1]
    task = worker.Task(tmp_path / "run", [], None, True, tmp_path / "run.log", settings.current())
    return lambda: worker.run_task(task, events)


def test_two_workers_never_train_one_run(last_event, tmp_path):
    with locked(tmp_path / "run.log", timeout=0.0):
        event = last_event()
    assert isinstance(event, Failed) and "still training this run" in event.reason
    assert not (tmp_path / "run").exists()


def test_a_run_that_a_predecessor_finished_is_finished(last_event, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "summary.json").write_text(json.dumps({**summary_of(), "seconds": 1}))
    (tmp_path / "run" / "model.safetensors").write_text("")
    assert last_event().summary.seconds == 1


def test_half_written_settings_of_a_predecessor_are_removed(last_event, tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".config.toml.7.part").write_text("[bac")

    def train(layers, recipe, out, *others):
        check_out(out, force=False)
        return SimpleNamespace(summary={})

    monkeypatch.setattr(worker.training, "train", train)
    assert last_event() == Finished({})
