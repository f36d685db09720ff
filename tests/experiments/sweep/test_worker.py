"""A run's process beside one that a killed study has left at work on the same run."""

from __future__ import annotations

import json
import multiprocessing
from types import SimpleNamespace

import pytest

from fgvc_cli import settings
from fgvc_cli.experiments import worker
from fgvc_cli.experiments.worker import Failed, Finished
from fgvc_cli.locks import locked
from fgvc_cli.runs.folder import check_out
from fgvc_cli.testing.tiny import summary_of


@pytest.fixture
def outcome(tmp_path, monkeypatch):
    """A function that does the task of training nothing, in this process."""
    monkeypatch.setattr(worker, "PATIENCE", 0.0)
    told = multiprocessing.Pipe(duplex=False)[1]
    task = worker.Task(tmp_path / "run", [], None, True, tmp_path / "run.log", settings.current())
    return lambda: worker._outcome(task, told)


def test_two_processes_never_train_one_run(outcome, tmp_path):
    with locked(tmp_path / "run.log", patience=0.0):
        assert outcome() == Failed("An earlier process is still at work on it: end that one, and try again.")
    assert not (tmp_path / "run").exists()


def test_what_a_predecessor_finished_is_finished(outcome, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "summary.json").write_text(json.dumps({**summary_of(), "seconds": 1}))
    (tmp_path / "run" / "model.safetensors").write_text("")
    assert outcome().summary.seconds == 1


def test_settings_that_a_predecessor_had_half_written_are_in_nobodys_way(outcome, tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".config.toml.7.part").write_text("[bac")

    def train(layers, recipe, out, *others):
        check_out(out, force=False)
        return SimpleNamespace(summary={})

    monkeypatch.setattr(worker.training, "train", train)
    assert outcome() == Finished({})
