"""The work of one run: next to another process, and after one that was killed."""

from __future__ import annotations

import json

import pytest

from fgvc_cli import settings
from fgvc_cli._version import __version__
from fgvc_cli.errors import FgvcError
from fgvc_cli.experiments import worker
from fgvc_cli.experiments.claims import Claim
from fgvc_cli.experiments.folder import StudyFolder
from fgvc_cli.runs.folder import check_out
from fgvc_cli.testing.tracker import summary_of


@pytest.fixture
def task(tmp_path):
    """A task in a study folder."""
    (tmp_path / "study.toml").touch()
    check = worker.FolderCheck(tmp_path, __version__)
    return worker.Task(check, "run", {"seed": 0}, "ours", [], None, True, settings.current())


def test_two_processes_never_train_one_run(task):
    claim = Claim.take(task.folder.claims, "run", "theirs", {})
    task.train()
    assert task.folder.record("run").token == "theirs" and not task.folder.run("run").path.exists()
    claim.end("stopped")


def test_a_run_that_a_predecessor_finished_is_finished(task):
    run = task.folder.run("run")
    run.path.mkdir(parents=True)
    run.summary_file.write_text(json.dumps({**summary_of(), "seconds": 1}))
    run.model_file.write_text("")
    task.train()
    assert task.folder.record("run").state == "finished"


def test_half_written_settings_of_a_predecessor_are_removed(task, monkeypatch):
    run = task.folder.run("run")
    run.path.mkdir(parents=True)
    (run.path / ".config.toml.7.part").write_text("[bac")
    monkeypatch.setattr(worker.training, "train", lambda layers, recipe, out, *_: check_out(out, force=False))
    task.train()
    assert task.folder.record("run").state == "finished"


@pytest.mark.parametrize(
    ("error", "state"), [(ValueError("no\nbirds"), "failed"), (FgvcError("No space left to write"), "stopped")]
)
def test_the_claim_says_why_a_run_ended(task, monkeypatch, error, state):
    def train(*_):
        raise error

    monkeypatch.setattr(worker.training, "train", train)
    task.train()
    record = task.folder.record("run")
    assert record.state == state and str(error).split()[-1] in record.reason and "\n" not in record.reason


def test_a_study_folder_that_is_missing_here_is_not_created(task, tmp_path):
    elsewhere = tmp_path / "other machine"
    absent = worker.FolderCheck(elsewhere, __version__)
    with pytest.raises(FgvcError, match="other machine"):
        worker.Task(absent, "run", {}, "", [], None, True, settings.current())(None)
    assert not elsewhere.exists() and "version 0" in worker.FolderCheck(tmp_path, "99")()
    assert worker.FolderCheck(StudyFolder(tmp_path).path, __version__)() == ""
