"""`fgvc train`: its output, the run folder it writes, and its errors."""

from __future__ import annotations

import json
import shutil
import tomllib
from pathlib import Path

import pytest
from PIL import Image

from fgvc_cli import FgvcError

TINY = ["--backbone", "timm/test_resnet", "--image-size", 32, "--batch-size", 8, "--epochs", 1, "--device", "cpu"]
SMALL_DEMO = [
    "--set", "dataset.train=2", "--set", "dataset.val=1", "--set", "dataset.test=2", "--set", "dataset.size=64",
]  # fmt: skip


@pytest.fixture
def insects(bee_run, tmp_path):
    """A folder with train and test; test lacks a class."""
    return tmp_path / "insects"


def test_the_demo_trains_and_prints_commands_that_run(fgvc, tmp_path, figures, monkeypatch):
    monkeypatch.chdir(tmp_path)
    figures(monkeypatch)
    result = fgvc("train", *TINY, *SMALL_DEMO, "--head", "pim", "--set", "head.fpn_size=16", "--out", "run")
    assert result.exit_code == 0, result.stderr
    for word in ("data ", "model ", "training ", "device ", "from scratch", "epoch   1/1", "pim: "):
        assert word in result.stderr, word
    with Image.open("run/curves.png") as curves:
        colors = {color for _, color in curves.convert("RGB").getcolors(1 << 24)}
    assert (0, 114, 178) in colors, "the line of the training is drawn"
    assert "where chance is 8.3 %" in result.stdout and "Trained from scratch" in result.stdout
    explain, evaluate = [line for line in result.stdout.splitlines() if " fgvc " in line]
    assert evaluate.split() == ["fgvc", "evaluate", "run"]
    first, _, command, sample, *options = explain.split()
    assert (first, command, options) == ("next:", "explain", ["--run", "run", "--occlude"])
    again = fgvc(command, sample, *options, "--json")
    assert again.exit_code == 0, again.stderr
    (explained,) = json.loads(again.stdout)["images"]
    assert explained["true"] in sample and (tmp_path / explained["picture"]).is_file()


def test_an_explanation_that_would_fail_is_not_suggested(fgvc, insects, monkeypatch, tmp_path):
    def cam_layer(backbone, map_index):
        raise FgvcError("no module outputs that map")

    monkeypatch.setattr("fgvc_backbones.timm_backbone.TimmBackbone.cam_layer", cam_layer)
    result = fgvc("train", "--data", insects, *TINY, "--head", "linear", "--out", tmp_path / "run")
    assert result.exit_code == 0, result.stderr
    assert "fgvc evaluate" in result.stdout and "fgvc explain" not in result.stdout


def test_a_run_has_a_name_a_summary_and_the_evaluation_of_its_test_split(fgvc, insects, monkeypatch, tmp_path):
    monkeypatch.setenv("FGVC_RUNS", str(tmp_path / "all"))
    result = fgvc("train", "--data", insects, *TINY, "--head", "linear", "--optimizer", "adamw", "--json")
    assert result.exit_code == 0, result.stderr
    (run,) = (tmp_path / "all").iterdir()
    assert run.name.endswith("-folder-timm-test_resnet-linear-adamw")
    summary = json.loads(result.stdout)
    assert summary["classes"] == 3 and summary == json.loads((run / "summary.json").read_text())
    left = {path.name: path.read_bytes() for path in (run / "evaluation/test").iterdir()}
    assert fgvc("evaluate", run, "--device", "cpu", "--batch-size", 8).exit_code == 0  # sums round alike
    found = {path.name: path.read_bytes() for path in (run / "evaluation/test").iterdir()}
    assert found.pop("confusion.png") is not None
    assert left.keys() == found.keys() == {"predictions.csv", "per_class.csv", "summary.json"}
    (before, after) = (json.loads(files.pop("summary.json")) for files in (left, found))
    assert left == found
    assert {**before, "seconds": 0} == {**after, "seconds": 0}
    assert before["top1"] == summary["test"]["top1"]


def test_train_plus_val_keeps_the_last_epoch(fgvc, insects, tmp_path):
    shutil.copytree(insects / "test", insects / "val")
    options = ["--train-on", "train+val", "--sampling", "class", "--no-cache", "--epochs", 2]
    result = fgvc("train", "--data", insects, *TINY, *options, "--json", "--out", tmp_path / "run")
    assert result.exit_code == 0, result.stderr
    summary = json.loads(result.stdout)
    assert list(summary["splits"]) == ["train+val", "test"] and summary["splits"]["train+val"]["images"] == 22
    assert summary["best_epoch"] == summary["epochs"] == 2 and summary["val"] is None
    settings = tomllib.loads((tmp_path / "run/config.toml").read_text())["train"]
    assert (settings["train_on"], settings["sampling"], settings["cache"]) == ("train+val", "class", "off")


def wrong_lines(folder: Path = Path()) -> dict[str, tuple[list[object], int, str]]:
    """Wrong command lines, in a folder with "empty" and "file.txt": arguments, exit code, part of the error."""
    return {
        "name": (["--head", "pimm"], 2, "Did you mean 'pim'"),
        "option": (["--head", "pim", "--set", "head.fpn_sze=3"], 2, "fpn_size"),
        "section": (["--set", "haed.fpn_size=3"], 2, "head"),
        "value": (["--epochs", -1], 2, "--epochs"),
        "no such option": (["--epoch", 3], 2, "--epochs"),
        "size": (["--backbone", "timm/test_vit", "--image-size", 50], 2, "--image-size 48"),
        "device": (["--device", "cuda:99"], 2, "--device"),
        "missing folder": (["--data", folder / "none"], 1, "none"),
        "empty folder": (["--data", folder / "empty"], 1, "empty"),
        "a file as folder": (["--data", folder / "file.txt"], 2, "--data"),
        "resume": (["--resume", folder / "none"], 1, "none"),
        "resume with more": (["--resume", folder, "--no-cache", "--head", "pim"], 2, "leave out --head, --no-cache"),
        "folder for demo": (["--dataset", "demo", "--data", folder / "empty"], 2, "takes no folder"),
    }


@pytest.mark.parametrize("case", list(wrong_lines()))
def test_a_wrong_command_line_is_an_error_of_one_line_and_no_run_folder(fgvc, tmp_path, monkeypatch, case):
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


def test_unreadable_images_are_named_and_change_the_exit_code(fgvc, insects, tmp_path):
    (insects / "train/ant/1.png").write_bytes(b"no image")
    result = fgvc("train", "--data", insects, *TINY, "--out", tmp_path / "run")
    assert result.exit_code == 3 and "train/ant/1.png" in result.stderr and "1 image" in result.stdout
    strict = fgvc("train", "--data", insects, *TINY, "--out", tmp_path / "strict", "--strict-data")
    assert strict.exit_code == 1 and "train/ant/1.png" in strict.stderr.splitlines()[-1]
