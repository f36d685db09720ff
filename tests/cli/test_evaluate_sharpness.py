"""`fgvc evaluate --sharpness` from end to end, on small classifiers."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from fgvc_cli.evaluation import run_sharpness, sharpness
from fgvc_cli.runs import model_file

QUICK = ("--limit", 6, "--points", 3)


def measure(fgvc: Any, *arguments: Any) -> Any:
    return fgvc("evaluate", *arguments, "--sharpness", *QUICK)


@pytest.fixture(autouse=True)
def landscapes(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Function that draws landscapes; the tests do not, which takes most of the time."""
    real = run_sharpness.draw_landscape
    monkeypatch.setattr(run_sharpness, "draw_landscape", lambda path, labels, runs: path.touch())
    return lambda: monkeypatch.setattr(run_sharpness, "draw_landscape", real)


def document_in(folder: Path) -> dict:
    assert (folder / "landscape.png").is_file()
    return json.loads((folder / "sharpness.json").read_text())


def test_a_run_is_measured_on_its_training_images(fgvc, bee_run: Path) -> None:
    before = (bee_run / "model.safetensors").read_bytes()
    result = measure(fgvc, bee_run, "--json")
    assert result.exit_code == 0, result.stderr
    assert (bee_run / "model.safetensors").read_bytes() == before
    assert {path.name for path in (bee_run / "evaluation/train").iterdir()} == {"sharpness.json", "landscape.png"}
    document = document_in(bee_run / "evaluation/train")
    assert json.loads(result.stdout) == document and document["precision"] == "fp32"
    (run,) = document["runs"]
    assert (run["run"], run["split"], run["images"], run["images_available"]) == (str(bee_run), "train", 6, 8)
    assert run["loss"] == pytest.approx(-(math.log(0.3) + math.log(0.6) + math.log(0.1)) / 3)  # two of each class
    assert [rise["radius"] for rise in run["rises"]] == pytest.approx([0.025, 0.05, 0.1, 0.15, 0.2])
    first = run["rises"][0]
    assert first["gradient"] > 0 and abs(first["random"]) < first["gradient"]
    assert first["gradient"] == pytest.approx(0.025 * run["gradient_norm"], rel=0.5)
    assert run["landscape"]["coordinates"] == [-1, 0, 1]
    assert run["landscape"]["losses"][1][1] == run["loss"]
    again, other = (json.loads(measure(fgvc, bee_run, "--seed", seed, "--json").stdout)["runs"][0] for seed in (0, 5))
    assert run == again
    assert run["lines"]["gradient"] == other["lines"]["gradient"]
    assert run["lines"]["random"] != other["lines"]["random"]


def test_the_tables_have_rises_and_files(fgvc, bee_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fgvc_cli.cli import console

    monkeypatch.setenv("COLUMNS", "60")
    console._console.cache_clear()
    result = measure(fgvc, bee_run, "--adaptive-rho", 1.5)
    console._console.cache_clear()
    assert f"run        {bee_run}\nimages     6, train of {bee_run.parent / 'insects'}" in result.stderr
    tables = result.stdout.partition("\n\n")[2].partition("written:")[0]
    assert "(rho = 0.05)" in tables and "(rho = \n1.5)" in tables and max(map(len, tables.splitlines())) <= 60
    lines = [line.split() for line in tables.splitlines()]
    assert len([line for line in lines if line[:1] == ["bee-run"]][-1]) == 6  # five adaptive rises
    assert f"written: {bee_run}/evaluation/train/ (sharpness.json, landscape.png)" in result.stdout
    command = next(line for line in result.stdout.splitlines() if line.startswith("next: "))
    assert fgvc(*command.removeprefix("next: fgvc ").split()).exit_code == 0
    assert len(list((bee_run / "evaluation").iterdir())) == 2


@pytest.mark.slow
def test_several_runs_are_measured_and_drawn_together(fgvc, bee_run, another_run, here, landscapes) -> None:
    landscapes()
    ant_run = another_run("ant-run", {"ant": 0.8, "bee": 0.1, "cat": 0.1})
    result = measure(fgvc, bee_run, ant_run, "--rho", 0.1)
    assert result.exit_code == 0, result.stderr
    (folder,) = (here / "sharpness").iterdir()
    document = document_in(folder)
    with Image.open(folder / "landscape.png") as picture:
        assert picture.format == "PNG" and min(picture.size) > 300
    bee, ant = document["runs"]
    assert (bee["run"], ant["run"], document["rho"], document["notes"]) == (str(bee_run), str(ant_run), 0.1, [])
    assert bee["landscape"]["losses"] != ant["landscape"]["losses"]
    alone = json.loads(measure(fgvc, ant_run, "--rho", 0.1, "--json").stdout)
    assert alone["runs"] == [ant]
    assert f"next: fgvc evaluate {bee_run} {ant_run} --ensemble" in result.stdout


def test_runs_that_are_not_comparable_are_reported(fgvc, bee_run, another_run, here) -> None:
    other = another_run("other-run")
    config = other / "config.toml"
    config.write_text(config.read_text().replace("seed = 0", "seed = 1"))
    state, document = model_file.load(other / "model.safetensors")
    document["components"]["head"]["options"] = {"dropout": 0.5}
    model_file.save(other / "model.safetensors", state, document)
    result = measure(fgvc, bee_run, other, "--json")
    images, networks = json.loads(result.stdout)["notes"]
    assert "different images" in images and "different networks" in networks
    assert images in result.stderr and networks in result.stderr


@pytest.mark.slow
def test_other_images_can_be_selected(fgvc, bee_run: Path, tmp_path: Path) -> None:
    test = json.loads(measure(fgvc, bee_run, "--split", "test", "--json").stdout)
    assert test["runs"][0]["split"] == "test" and "not trained on these images" in test["notes"][0]
    assert document_in(bee_run / "evaluation/test")["runs"] == test["runs"]
    elsewhere = json.loads(measure(fgvc, bee_run, "--data", tmp_path / "insects", "--json").stdout)
    assert elsewhere["runs"][0]["split"] == "train" and elsewhere["notes"] == []
    second = Path(shutil.copytree(tmp_path / "insects", tmp_path / "elsewhere/insects"))
    refused = measure(fgvc, bee_run, "--data", second)  # another dataset with the same name
    assert refused.exit_code == 1 and str(tmp_path / "insects") in refused.stderr and "--out" in refused.stderr


def test_unreadable_images_are_reported_and_skipped(fgvc, bee_run: Path, tmp_path: Path) -> None:
    for file in (tmp_path / "insects/train/bee").glob("*.png"):
        file.write_bytes(b"broken")
    result = measure(fgvc, bee_run)
    assert result.exit_code == 3
    document = document_in(bee_run / "evaluation/train")
    assert (document["runs"][0]["images"], document["failed"]) == (4, 2)
    assert "(2): bee/" in result.stdout
    for file in (tmp_path / "insects/train").rglob("*.png"):
        file.write_bytes(b"broken")
    none = measure(fgvc, bee_run, "--out", tmp_path / "new")
    assert none.exit_code == 1 and f"{bee_run}: none of the 6 images (train) can be read" in none.stderr
    assert not (tmp_path / "new").exists()


@pytest.fixture
def stop_at(monkeypatch: pytest.MonkeyPatch):
    """Function that interrupts at a stage, the first or a later time that it is reached."""

    def stop(stage: str, time: int = 1) -> None:
        real, reached = sharpness._Stage.advance, []

        def advance(self: Any, images: int) -> None:
            real(self, images)
            reached.append(self.name) if self.name == stage else None
            if reached.count(stage) == time:
                raise KeyboardInterrupt

        monkeypatch.setattr(sharpness._Stage, "advance", advance)

    return stop


@pytest.mark.slow
def test_an_interruption_in_the_plane_keeps_the_rises(fgvc, bee_run: Path, stop_at) -> None:
    assert measure(fgvc, bee_run).exit_code == 0
    stop_at("plane", 3)
    result = measure(fgvc, bee_run)
    assert result.exit_code == 130
    assert "interrupted" in result.stdout and "0.025" in result.stdout
    # a picture of the earlier measurement would be misleading
    assert [path.name for path in (bee_run / "evaluation/train").iterdir()] == ["sharpness.json"]
    document = json.loads((bee_run / "evaluation/train/sharpness.json").read_text())
    assert document["interrupted"] and document["runs"][0]["landscape"] is None


def test_an_interruption_in_a_later_run_keeps_the_runs_before(fgvc, bee_run, another_run, here, stop_at) -> None:
    stop_at("along the gradient", 1 + 10 + 1)  # the gradient and ten losses of the first run
    result = measure(fgvc, bee_run, another_run("ant-run"), "--out", "both")
    assert result.exit_code == 130
    document = document_in(here / "both")
    assert [run["run"] for run in document["runs"]] == [str(bee_run)] and document["interrupted"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sharpness", "--ensemble"], "exclude each other"),
        (["--sharpness", "--rho", "nan"], "--rho nan"),
        (["--sharpness", "--adaptive-rho", "-1"], "--adaptive-rho -1"),
        (["--sharpness", "--points", "4"], "--points 4"),
        (["--sharpness", "--per-class"], "--per-class"),
        (["--adaptive-rho", "0.1"], "add --sharpness"),
        (["--sharpness", "--split", "tset"], "Did you mean 'test'"),
        (["--sharpness", "--run", "SAME"], "twice"),
    ],
)
def test_a_wrong_command_line_is_one_line(fgvc, bee_run: Path, arguments, message) -> None:
    arguments = [bee_run / "model.safetensors" if argument == "SAME" else argument for argument in arguments]
    result = fgvc("evaluate", bee_run, *arguments)
    assert result.exit_code == 2 and message in result.stderr
    assert len([line for line in result.stderr.splitlines() if "error" in line]) == 1
    assert not (bee_run / "evaluation").exists()


def test_bf16_is_used_only_on_request(fgvc, bee_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Precision "auto" is fp32 on the CPU anyway; on a GPU it would be bf16."""
    real, computed = run_sharpness.load, []
    monkeypatch.setattr(run_sharpness, "load", lambda model, c: computed.append(c.precision) or real(model, c))
    auto = json.loads(measure(fgvc, bee_run, "--json").stdout)
    bf16 = json.loads(measure(fgvc, bee_run, "--precision", "bf16", "--json").stdout)
    assert computed == ["fp32", "bf16"] and bf16["precision"] == "bf16"
    rises = [document["runs"][0]["rises"][-1]["gradient"] for document in (auto, bf16)]
    assert rises[0] != rises[1] and rises[0] == pytest.approx(rises[1], rel=0.1)
    assert torch.is_grad_enabled()


@pytest.mark.slow
def test_a_run_trained_on_train_and_val_is_measured_on_both(fgvc, bee_run: Path, tmp_path: Path) -> None:
    config = bee_run / "config.toml"
    config.write_text(config.read_text() + 'train_on = "train+val"\n')
    without = json.loads(measure(fgvc, bee_run, "--json").stdout)
    assert (without["runs"][0]["split"], without["runs"][0]["images_available"]) == ("train", 12)
    shutil.copytree(tmp_path / "insects/train", tmp_path / "insects/val")
    both = json.loads(measure(fgvc, bee_run, "--json").stdout)
    assert (both["runs"][0]["split"], both["runs"][0]["images_available"]) == ("train+val", 24)
    assert without["notes"] == both["notes"] == []
