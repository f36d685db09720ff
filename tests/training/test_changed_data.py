"""Data that changed after a training started: named, refused, and gone on with by choice."""

from __future__ import annotations

import json
import shutil
import tomllib

import pytest

from fgvc_cli.config.run_config import read_run_config
from fgvc_cli.errors import FgvcError
from fgvc_cli.evaluation.evaluate import evaluate_run
from fgvc_cli.evaluation.split_selection import SplitRequest, select_split
from fgvc_cli.experiments.compare import compare_selection, evaluator, select_runs
from fgvc_cli.experiments.planning import SweepRequest
from fgvc_cli.experiments.sweep import new_sweep, resume_sweep
from fgvc_cli.registry import get_registry
from fgvc_cli.runs.folder import Run
from fgvc_cli.runs.model_file import read_metadata
from fgvc_cli.training import run as training
from fgvc_cli.training.state import Interrupted


@pytest.fixture
def own(photos, tmp_path):
    """A copy of the class folders without val."""
    folder = tmp_path / "own"
    shutil.copytree(photos, folder)
    shutil.rmtree(folder / "val")
    return folder


def rename_class(folder) -> None:
    for split in ("train", "test"):
        (folder / split / "red").rename(folder / split / "aaa")


def add_images(folder) -> None:
    for i in range(4):
        shutil.copy(folder / "test/red/0.png", folder / f"train/red/new{i}.png")


@pytest.fixture
def interrupted(train, interrupt_at, own, tmp_path) -> Run:
    with pytest.raises(Interrupted):
        train(tmp_path / "run", interrupt_at(8), data=own, epochs=3)
    return Run(tmp_path / "run")


def test_a_renamed_class_is_never_resumed(interrupted, own, resume) -> None:
    rename_class(own)
    for allow in (False, True):
        with pytest.raises(FgvcError, match="class 'red' was renamed 'aaa'"):
            training.resume(interrupted.path, get_registry(), allow_changed_data=allow)


def test_added_images_are_named_and_used_by_choice(interrupted, own, resume) -> None:
    held_out = _held_out(interrupted)
    add_images(own)
    with pytest.raises(FgvcError, match=r"4 images were added to train \('red'\).*allow_changed_data=true"):
        resume(interrupted.path)
    run = training.resume(interrupted.path, get_registry(), allow_changed_data=True).run
    assert held_out <= _held_out(run, allow=True)
    changes = ["after epoch 1: 4 images were added to train ('red')"]
    assert run.summary.data["changes"] == read_metadata(run.model_file)["data"]["changes"] == changes
    assert [line.train.images for line in run.metrics] == [27 - len(held_out)] + [31 - len(_held_out(run))] * 2


def _held_out(run: Run, allow: bool = True) -> set[str]:
    config = tomllib.loads(run.config_file.read_text())
    classes = ("blue", "green", "red")
    assert config["train"]["val_by"] == "name"
    return set(
        select_split(SplitRequest("val", allow_changed_data=allow), run.path, classes, get_registry()).split.keys
    )


def test_evaluation_names_changes_of_its_split_alone(train, own, tmp_path) -> None:
    run = train(tmp_path / "run", data=own, epochs=1).run
    add_images(own)
    registry = get_registry()
    assert evaluate_run(run.model_file, registry).summary.images == 12
    with pytest.raises(FgvcError, match="4 images were added to train"):
        evaluate_run(run.model_file, registry, SplitRequest("val"))
    evaluate_run(run.model_file, registry, SplitRequest("val", allow_changed_data=True))
    evaluate_run(run.model_file, registry, SplitRequest(data=own))
    (own / "test/red/0.png").unlink()
    with pytest.raises(FgvcError, match="1 image was removed from test"):
        evaluate_run(run.model_file, registry)


def test_runs_on_other_images_are_not_ranked_together(train, own, tmp_path) -> None:
    train(tmp_path / "a", data=own, epochs=1)
    add_images(own)
    train(tmp_path / "b", data=own, epochs=1, seed=1)
    selection = select_runs([tmp_path / "a", tmp_path / "b"])
    apart = compare_selection(selection, None, evaluator())
    assert len(apart.tables) == 2 and "4 images were added to train" in apart.notes[0]
    (table,) = compare_selection(selection, None, evaluator(), allow_changed_data=True).tables
    assert len(table.rows) == 2 and any("4 images were added to train" in note for note in table.notes)


def test_runs_of_older_versions_keep_the_images_they_held_out(train, own, tmp_path) -> None:
    run = train(tmp_path / "run", data=own, epochs=1, val_by="position").run
    before = _keys(run)
    text = run.config_file.read_text()
    run.config_file.write_text(text.replace('val_by = "position"\n', ""))
    assert read_run_config(run.config_file)[0]["train"]["val_by"] == "position"
    assert _keys(run) == before
    summary = json.loads(run.summary_file.read_text())
    del summary["data"]
    run.summary_file.write_text(json.dumps(summary))
    assert run.summary.data is None and compare_selection(select_runs([run.path]), None, evaluator()).tables


def _keys(run: Run) -> list[str]:
    return list(select_split(SplitRequest("val"), run.path, ("blue", "green", "red"), get_registry()).split.keys)


def test_a_study_is_resumed_on_the_same_data(own, tmp_path) -> None:
    options = {
        "dataset": {"data": str(own)},
        "train": {"weights": "none", "image_size": 32, "batch_size": 8, "epochs": 1, "device": "cpu", "workers": 0},
    }
    names = {"backbone": ["timm/test_resnet"], "head": ["linear"], "optimizer": ["sgd"]}
    sweep = new_sweep(SweepRequest(names, options, seeds=2), get_registry())
    folder = sweep.prepare_folder(tmp_path / "study")
    first = sweep.study.runs()[0]
    training.train(first.layers, None, folder.run(first.name).path, True, get_registry())
    assert len(resume_sweep(folder.path, get_registry()).check_data()) == 1
    add_images(own)
    resumed = resume_sweep(folder.path, get_registry())
    with pytest.raises(FgvcError, match=f"{first.name}.*4 images were added to train"):
        resumed.check_data()
    assert "4 images were added" in resumed.check_data(allow_changed_data=True)[1]
