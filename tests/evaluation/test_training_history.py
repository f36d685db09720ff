"""Notes on runs that were trained or validated on the images of a split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fgvc_cli.contracts import Split
from fgvc_cli.evaluation.split_selection import SplitRequest, select_split
from fgvc_cli.evaluation.training_history import notes_of_runs
from fgvc_cli.registry import get_registry

CLASSES = ("ant", "bee")


@pytest.fixture
def insects(tmp_path: Path) -> Path:
    """A dataset with 12 images of each of two classes to train on, and 2 of each to test on."""
    for split, count in (("train", 12), ("test", 2)):
        for name in CLASSES:
            (tmp_path / "insects" / split / name).mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (8, 8)).save(tmp_path / "insects" / split / name / f"{i}.png")
    return tmp_path / "insects"


@pytest.fixture
def run_on(tmp_path: Path):
    """Function that makes a run folder with a quarter of the images held out for validation."""

    def make(name: str, data: Path, **train: int) -> tuple[str, Path]:
        folder = tmp_path / name
        folder.mkdir()
        settings = "".join(f"{key} = {value!r}\n" for key, value in {"seed": 0, **train}.items())
        (folder / "config.toml").write_text(
            f"recipe = 'scratch'\n[dataset]\nname = 'folder'\ndata = '{data}'\n[train]\nvalidation_share = 0.25\n"
            + settings
        )
        return name, folder

    return make


def split_of(run: tuple[str, Path], name: str) -> Split:
    return select_split(SplitRequest(name), run[1], CLASSES, get_registry()).split


def test_another_seed_trains_on_images_held_out_by_the_first(insects, run_on) -> None:
    first, second = run_on("first", insects), run_on("second", insects, seed=2)
    val, other = (split_of(run, "val") for run in (first, second))
    shared = len(set(val.keys) & set(other.keys))
    assert 0 < shared < (held_out := len(val))  # else the seeds would not tell
    own, trained, validated = notes_of_runs([first, second], val, get_registry())
    assert f"checkpoint of first was selected on {held_out} of these {held_out} images" in own
    assert f"second was trained on {held_out - shared} of these {held_out} images" in trained
    assert f"checkpoint of second was selected on {shared} of these {held_out} images" in validated


def test_unseen_images_have_no_notes(insects, run_on) -> None:
    first, second = run_on("first", insects), run_on("second", insects, seed=2)
    assert notes_of_runs([first, second], split_of(first, "test"), get_registry()) == []


def test_another_dataset_can_contain_training_images(insects, run_on) -> None:
    run = run_on("first", insects, train_on="train+val")
    selected = select_split(SplitRequest("train", data=insects), run[1], CLASSES, get_registry())
    assert "first was trained on 24 of these 24 images" in notes_of_runs([run], selected.split, get_registry())[0]


def test_runs_on_different_datasets_are_reported(insects, run_on) -> None:
    other = insects.parent / "other"
    insects.rename(other)
    Path(insects).symlink_to(other)
    runs = [run_on("first", insects), run_on("second", other)]
    (note,) = notes_of_runs(runs, split_of(runs[0], "test"), get_registry())
    assert note == f"The runs were trained on different datasets: first on {insects}, second on {other}."


def test_untrained_runs_have_no_notes(insects, run_on) -> None:
    run = run_on("first", insects, epochs=0)
    assert notes_of_runs([run], split_of(run, "train"), get_registry()) == []


def test_an_unknown_history_is_reported(insects, run_on, tmp_path) -> None:
    known, gone = run_on("known", insects), run_on("gone", tmp_path / "nowhere")
    (tmp_path / "bare").mkdir()
    notes = notes_of_runs([known, gone, ("bare", tmp_path / "bare")], split_of(known, "test"), get_registry())
    assert len(notes) == 2 and "gone" in notes[0] and "nowhere" in notes[0]
    assert "bare" in notes[1] and "config.toml" in notes[1]


def test_images_without_files_are_identified_by_pixels(insects, run_on, monkeypatch) -> None:
    from fgvc_cli.evaluation import training_history

    pixels = [np.full((2, 2, 3), value, np.uint8) for value in range(3)]
    splits = training_history.TrainingSplits(Split("train", pixels[:2], [0, 1], ["a", "b"]), None, None)
    monkeypatch.setattr(training_history, "training_splits", lambda *_: splits)
    selected = Split("test", [pixels[1].copy(), pixels[2]], [0, 1], ["a", "b"])
    (note,) = notes_of_runs([run_on("run", insects)], selected, get_registry())
    assert note.startswith("run was trained on 1 of these 2 images")
