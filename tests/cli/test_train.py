"""`fgvc train` from the command line: what it prints, and what it says of bad input."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

TINY = ["--backbone", "timm/test_resnet", "--image-size", 32, "--batch-size", 8, "--epochs", 1, "--device", "cpu"]
SMALL_DEMO = [
    "--set", "dataset.train=2", "--set", "dataset.val=1", "--set", "dataset.test=2", "--set", "dataset.size=64",
]  # fmt: skip


@pytest.fixture
def insects(bee_run, tmp_path):
    """A folder with train and test; test lacks a class."""
    return tmp_path / "insects"


def test_the_demo_trains_and_names_what_to_try_next(fgvc, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = fgvc("train", *TINY, *SMALL_DEMO, "--head", "pim", "--set", "head.fpn_size=16", "--out", "run")
    assert result.exit_code == 0, result.stderr
    for word in ("data ", "model ", "training ", "device ", "from scratch", "epoch   1/1", "pim: "):
        assert word in result.stderr, word
    assert "where chance is 8.3 %" in result.stdout and "Trained from scratch" in result.stdout
    explain, evaluate = [line for line in result.stdout.splitlines() if " fgvc " in line]
    assert evaluate.split() == ["fgvc", "evaluate", "run"]
    first, _, command, sample, *options = explain.split()
    assert (first, command, options) == ("next:", "explain", ["--run", "run", "--occlude"])
    again = fgvc(command, sample, *options, "--json")
    assert again.exit_code == 0, again.stderr
    (explained,) = json.loads(again.stdout)["images"]
    assert explained["true"] in sample and (tmp_path / explained["picture"]).is_file()


def test_json_is_all_there_is_on_standard_output(fgvc, insects, tmp_path):
    result = fgvc("train", "--data", insects, *TINY, "--json", "--out", tmp_path / "run")
    assert result.exit_code == 0, result.stderr
    summary = json.loads(result.stdout)
    assert summary["classes"] == 3 and 0 <= summary["test"]["top1"] <= 1
    assert summary == json.loads((tmp_path / "run/summary.json").read_text())


def test_a_run_keeps_what_evaluating_it_would_say_of_each_test_image(fgvc, insects, tmp_path):
    run = tmp_path / "run"
    assert fgvc("train", "--data", insects, *TINY, "--head", "cmal", "--out", run).exit_code == 0
    left = {path.name: path.read_bytes() for path in (run / "evaluation/test").iterdir()}
    assert fgvc("evaluate", run, "--device", "cpu", "--batch-size", 8).exit_code == 0  # sums round alike
    found = {path.name: path.read_bytes() for path in (run / "evaluation/test").iterdir()}
    drawn = found.pop("confusion.png")
    assert drawn and left.keys() == found.keys() == {"predictions.csv", "per_class.csv", "summary.json"}
    (before, after) = (json.loads(files.pop("summary.json")) for files in (left, found))
    assert left == found
    assert {**before, "seconds": 0} == {**after, "seconds": 0}
    assert before["top1"] == json.loads((run / "summary.json").read_text())["test"]["top1"]


def test_a_run_without_out_is_named_by_its_parts(fgvc, insects, monkeypatch, tmp_path):
    monkeypatch.setenv("FGVC_RUNS", str(tmp_path / "all"))
    assert fgvc("train", "--data", insects, *TINY, "--head", "linear", "--optimizer", "adamw").exit_code == 0
    (run,) = (tmp_path / "all").iterdir()
    assert run.name.endswith("-folder-timm-test_resnet-linear-adamw")


def test_training_on_all_but_the_test_split_keeps_the_last_epoch(fgvc, tmp_path):
    options = ["--train-on", "train+val", "--sampling", "class", "--no-cache", "--epochs", 2]
    result = fgvc("train", *SMALL_DEMO, *TINY, *options, "--json", "--out", tmp_path / "run")
    assert result.exit_code == 0, result.stderr
    summary = json.loads(result.stdout)
    assert list(summary["splits"]) == ["train+val", "test"] and summary["splits"]["train+val"]["images"] == 36
    assert "nothing held out" in summary["splits"]["train+val"]["origin"] and "nothing held out" in result.stderr
    assert summary["best_epoch"] == summary["epochs"] == 2 and summary["val"] is None
    settings = tomllib.loads((tmp_path / "run/config.toml").read_text())["train"]
    assert (settings["train_on"], settings["sampling"], settings["cache"]) == ("train+val", "class", "off")


def wrong_lines(folder: Path = Path()) -> dict[str, tuple[list[object], int, str]]:
    """Wrong command lines, in a folder with "empty" and "file.txt": arguments, exit code, what must be said."""
    return {
        "head": (["--head", "pimm"], 2, "Did you mean 'pim'"),
        "backbone": (["--backbone", "swint_t"], 2, "swin_t"),
        "timm": (["--backbone", "timm/resnet81"], 2, "resnet18"),
        "optimizer": (["--optimizer", "sdg"], 2, "sgd"),
        "dataset": (["--dataset", "dmeo"], 2, "demo"),
        "recipe": (["--recipe", "reprot"], 2, "report"),
        "option": (["--head", "pim", "--set", "head.fpn_sze=3"], 2, "fpn_size"),
        "section": (["--set", "haed.fpn_size=3"], 2, "head"),
        "value": (["--epochs", -1], 2, "--epochs"),
        "no epochs": (["--epochs", 0, "--weights", "none"], 2, "--weights FILE"),
        "no number": (["--epochs", "many"], 2, "--epochs"),
        "no such option": (["--epoch", 3], 2, "--epochs"),
        "size": (["--backbone", "vit_b16", "--image-size", 50], 2, "--image-size 48"),
        "tiny size": (["--image-size", 3], 2, "16"),
        "device": (["--device", "cuda:99"], 2, "--device"),
        "odd device": (["--device", "gpu"], 2, "cuda"),
        "train on": (["--train-on", "trainval"], 2, "train or train+val"),
        "sampling": (["--sampling", "balanced"], 2, "image or class or sqrt"),
        "resumed": (["--resume", "runs/x", "--no-cache"], 2, "leave out --no-cache"),
        "precision": (["--precision", "fp8"], 2, "bf16"),
        "missing folder": (["--data", folder / "none"], 1, "none"),
        "empty folder": (["--data", folder / "empty"], 1, "empty"),
        "a file as folder": (["--data", folder / "file.txt"], 2, "give a folder of images"),
        "config": (["--config", folder / "none.toml"], 1, "none.toml"),
        "weights file": (["--weights", folder / "none.pth"], 1, "none.pth"),
        "weights tag": (["--weights", "in22kk"], 2, "in22kk"),
        "resume": (["--resume", folder / "none"], 1, "not a run folder"),
        "resume with more": (["--resume", folder, "--epochs", 3], 2, "--epochs"),
        "resume with a component": (["--resume", folder, "--head", "pim"], 2, "leave out --head"),
        "folder for demo": (["--dataset", "demo", "--data", folder / "empty"], 2, "takes no folder"),
        "folder without data": (["--dataset", "folder"], 2, "--data"),
        "imagenet": (["--weights", "imagenet", "--offline"], 1, "--offline"),
    }


@pytest.mark.parametrize("case", list(wrong_lines()))
def test_a_wrong_command_line_is_one_clear_line_and_leaves_nothing(fgvc, tmp_path, monkeypatch, case):
    monkeypatch.setenv("FGVC_RUNS", str(tmp_path / "runs"))
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("text")
    arguments, code, words = wrong_lines(tmp_path)[case]
    defaults = [] if "resume" in case else ["--backbone", "timm/test_resnet", *SMALL_DEMO]
    if "data" in " ".join(map(str, arguments)):
        defaults = defaults[:2]
    result = fgvc("train", *defaults, *arguments)
    assert result.exit_code == code, result.stderr
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("fgvc: error:")]
    assert words in line, line
    assert "Traceback" not in result.stderr and not (tmp_path / "runs").exists()


def test_one_class_and_a_class_of_one_image(fgvc, tmp_path):
    data = tmp_path / "photos"
    for name, count in (("ant", 6), ("bee", 1)):
        (data / name).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(np.full((40, 40, 3), 40 * i, np.uint8)).save(data / name / f"{i}.png")
    result = fgvc("train", "--data", data, *TINY, "--out", tmp_path / "run")
    assert result.exit_code == 0, result.stderr
    assert "bee" in result.stderr
    (data / "bee/0.png").unlink()
    result = fgvc("train", "--data", data, *TINY, "--out", tmp_path / "other")
    assert result.exit_code == 1 and "ant" in result.stderr.splitlines()[-1]


def test_unreadable_images_are_named_counted_and_in_the_exit_code(fgvc, insects, tmp_path):
    (insects / "train/ant/1.png").write_bytes(b"no image")
    result = fgvc("train", "--data", insects, *TINY, "--out", tmp_path / "run")
    assert result.exit_code == 3 and "train/ant/1.png" in result.stderr and "1 image" in result.stdout
    strict = fgvc("train", "--data", insects, *TINY, "--out", tmp_path / "strict", "--strict-data")
    assert strict.exit_code == 1 and "train/ant/1.png" in strict.stderr.splitlines()[-1]
