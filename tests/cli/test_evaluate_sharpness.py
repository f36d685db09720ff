"""`fgvc evaluate --sharpness` from end to end, on classifiers that are small and know little."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from fgvc_cli.evaluation import sharpness as measuring
from fgvc_cli.runs import tensors

QUICK = ("--limit", 6, "--points", 3)


def sharpness(fgvc: Any, *arguments: Any) -> Any:
    return fgvc("evaluate", *arguments, "--sharpness", *QUICK)


def report_in(folder: Path) -> dict:
    with Image.open(folder / "landscape.png") as picture:
        assert picture.format == "PNG" and min(picture.size) > 300
    return json.loads((folder / "sharpness.json").read_text())


def test_the_run_is_measured_on_what_it_was_trained_on_and_nothing_else_changes(fgvc, bee_run: Path) -> None:
    before = (bee_run / "model.safetensors").read_bytes()
    result = sharpness(fgvc, bee_run)
    assert result.exit_code == 0, result.stderr
    assert (bee_run / "model.safetensors").read_bytes() == before
    assert {path.name for path in (bee_run / "evaluation/train").iterdir()} == {"sharpness.json", "landscape.png"}
    (run,) = report_in(bee_run / "evaluation/train")["runs"]
    assert (run["run"], run["split"], run["images"], run["images_available"]) == (str(bee_run), "train", 6, 9)
    assert run["loss"] == pytest.approx(-(math.log(0.3) + math.log(0.6) + math.log(0.1)) / 3)  # two of each class
    assert [rise["radius"] for rise in run["rises"]] == pytest.approx([0.025, 0.05, 0.1, 0.15, 0.2])
    first = run["rises"][0]
    assert first["gradient"] > 0 and abs(first["random"]) < first["gradient"]
    assert first["gradient"] == pytest.approx(0.025 * run["gradient_norm"], rel=0.5)
    assert run["landscape"]["coordinates"] == [-1, 0, 1]
    assert run["landscape"]["losses"][1][1] == run["loss"]


def test_what_is_printed_says_images_rises_and_where_the_files_are(fgvc, bee_run: Path) -> None:
    result = sharpness(fgvc, bee_run, "--adaptive-rho", 1.5)
    images = f"images     6, train of {bee_run.parent / 'insects'}, spread over its 9"
    assert f"run        {bee_run}\n{images}\n" in result.stderr
    assert f"{bee_run} on train of" in result.stdout
    assert "(rho = 0.05)" in result.stdout and "(ASAM) radius (rho = 1.5)" in result.stdout
    lines = [line.split() for line in result.stdout.splitlines()]
    rows = [line for line in lines if line[:1] in (["bee-run"], ["gradient"])]
    assert [len(row) for row in rows] == [6, 1, 6, 6]  # its weights; its section: five rises; five adaptive ones
    assert f"written: {bee_run}/evaluation/train/ (sharpness.json, landscape.png)" in result.stdout
    command = next(line for line in result.stdout.splitlines() if line.startswith("next: "))
    assert fgvc(*command.removeprefix("next: fgvc ").split()).exit_code == 0


def test_json_prints_the_document_and_nothing_else(fgvc, bee_run: Path) -> None:
    result = sharpness(fgvc, bee_run, "--json")
    assert json.loads(result.stdout) == report_in(bee_run / "evaluation/train")


def test_the_same_command_gives_the_same_figures(fgvc, bee_run: Path) -> None:
    first, again, other = (
        json.loads(sharpness(fgvc, bee_run, "--seed", seed, "--json").stdout)["runs"][0] for seed in (4, 4, 5)
    )
    assert first == again
    assert first["lines"]["gradient"] == other["lines"]["gradient"]
    assert first["lines"]["random"] != other["lines"]["random"]


def test_several_runs_are_measured_alike_and_drawn_together(fgvc, bee_run, another_run, here) -> None:
    ant_run = another_run("ant-run", {"ant": 0.8, "bee": 0.1, "cat": 0.1})
    result = sharpness(fgvc, bee_run, ant_run, "--rho", 0.1)
    assert result.exit_code == 0, result.stderr
    (folder,) = (here / "sharpness").iterdir()
    document = report_in(folder)
    bee, ant = document["runs"]
    assert (bee["run"], ant["run"], document["rho"], document["notes"]) == (str(bee_run), str(ant_run), 0.1, [])
    assert bee["landscape"]["losses"] != ant["landscape"]["losses"]
    alone = json.loads(sharpness(fgvc, ant_run, "--rho", 0.1, "--json").stdout)
    assert alone["runs"] == [ant]
    assert f"next: fgvc evaluate {bee_run} {ant_run} --ensemble" in result.stdout


def test_runs_that_do_not_compare_are_told_apart(fgvc, bee_run, another_run, here) -> None:
    other = another_run("other-run")
    config = other / "config.toml"
    config.write_text(config.read_text().replace("seed = 0", "seed = 1"))
    state, document = tensors.load(other / "model.safetensors")
    document["components"]["head"]["options"] = {"dropout": 0.5}
    tensors.save(other / "model.safetensors", state, document)
    result = sharpness(fgvc, bee_run, other, "--json")
    notes = json.loads(result.stdout)["notes"]
    assert notes == [
        "The runs are measured on different images, each on its own.",
        "The runs are different networks: a radius is not the same thing in each, and their rises do not compare.",
    ]
    assert all(note in result.stderr for note in notes)


def test_other_images_can_be_named_and_that_is_said(fgvc, bee_run: Path, tmp_path: Path) -> None:
    test = json.loads(sharpness(fgvc, bee_run, "--split", "test", "--json").stdout)
    assert test["runs"][0]["split"] == "test" and "these are not images that it was trained on" in test["notes"][0]
    assert report_in(bee_run / "evaluation/test")["runs"] == test["runs"]
    elsewhere = json.loads(sharpness(fgvc, bee_run, "--data", tmp_path / "insects", "--json").stdout)
    assert elsewhere["runs"][0]["split"] == "train" and elsewhere["notes"] == []
    assert report_in(bee_run / "evaluation/insects-train")
    flat = json.loads(sharpness(fgvc, bee_run, "--data", tmp_path / "insects/train", "--json").stdout)
    assert flat["runs"][0]["split"] == "all"


def test_what_was_measured_on_other_images_of_that_name_is_not_replaced(fgvc, bee_run: Path, tmp_path: Path) -> None:
    second = Path(shutil.copytree(tmp_path / "insects", tmp_path / "elsewhere/insects"))
    assert sharpness(fgvc, bee_run, "--data", tmp_path / "insects").exit_code == 0
    refused = sharpness(fgvc, bee_run, "--data", second)
    assert refused.exit_code == 1 and str(tmp_path / "insects") in refused.stderr and "--out" in refused.stderr
    assert sharpness(fgvc, bee_run, "--data", second, "--out", tmp_path / "new").exit_code == 0


def test_an_evaluation_of_the_same_images_stays_beside_it(fgvc, bee_run: Path) -> None:
    for _ in range(2):
        assert fgvc("evaluate", bee_run, "--split", "train").exit_code == 0
        assert sharpness(fgvc, bee_run).exit_code == 0
    assert len(list((bee_run / "evaluation/train").iterdir())) == 6


def test_unreadable_images_are_named_and_change_the_exit_code(fgvc, bee_run: Path, tmp_path: Path) -> None:
    for file in (tmp_path / "insects/train/bee").glob("*.png"):
        file.write_bytes(b"broken")
    result = sharpness(fgvc, bee_run)
    assert result.exit_code == 3
    document = report_in(bee_run / "evaluation/train")
    assert (document["runs"][0]["images"], document["failed"]) == (4, 2)
    assert "left out, for they cannot be read (2): bee/" in result.stdout
    for file in (tmp_path / "insects/train").rglob("*.png"):
        file.write_bytes(b"broken")
    none = sharpness(fgvc, bee_run, "--out", tmp_path / "new")
    assert none.exit_code == 1 and f"{bee_run}: none of the 6 images (train) can be read" in none.stderr
    assert not (tmp_path / "new").exists()


def test_weights_whose_loss_is_not_finite_are_refused(fgvc, another_run) -> None:
    broken = another_run("broken-run", {"ant": 0.2, "bee": math.inf, "cat": 0.2})
    result = sharpness(fgvc, broken)
    assert result.exit_code == 1
    assert f"{broken}: the loss at its weights is not finite" in result.stderr
    assert not (broken / "evaluation").exists()


@pytest.fixture
def stop_at(monkeypatch: pytest.MonkeyPatch):
    """A function that has Ctrl-C pressed at a stage, the first or a later time that it is reached."""

    def stop(stage: str, time: int = 1) -> None:
        real, reached = measuring._Stage.advance, []

        def advance(self: Any, images: int) -> None:
            real(self, images)
            reached.append(self.name) if self.name == stage else None
            if reached.count(stage) == time:
                raise KeyboardInterrupt

        monkeypatch.setattr(measuring._Stage, "advance", advance)

    return stop


def test_ctrl_c_in_the_plane_keeps_the_rises(fgvc, bee_run: Path, stop_at) -> None:
    stop_at("plane", 3)
    result = sharpness(fgvc, bee_run)
    assert result.exit_code == 130
    assert "interrupted: what had not been measured is missing." in result.stdout and "0.025" in result.stdout
    assert [path.name for path in (bee_run / "evaluation/train").iterdir()] == ["sharpness.json"]
    document = json.loads((bee_run / "evaluation/train/sharpness.json").read_text())
    assert document["interrupted"] and document["runs"][0]["landscape"] is None


def test_an_earlier_picture_does_not_stay_beside_figures_without_one(fgvc, bee_run: Path, stop_at) -> None:
    assert sharpness(fgvc, bee_run).exit_code == 0
    stop_at("plane")
    assert sharpness(fgvc, bee_run).exit_code == 130
    assert [path.name for path in (bee_run / "evaluation/train").iterdir()] == ["sharpness.json"]


def test_ctrl_c_before_that_leaves_nothing(fgvc, bee_run: Path, stop_at) -> None:
    stop_at("random directions")
    assert sharpness(fgvc, bee_run).exit_code == 130
    assert not (bee_run / "evaluation").exists()


def test_ctrl_c_in_a_later_run_keeps_the_runs_before(fgvc, bee_run, another_run, here, stop_at) -> None:
    stop_at("along the gradient", 1 + 10 + 1)  # of the first run the gradient and ten losses
    result = sharpness(fgvc, bee_run, another_run("ant-run"), "--out", "both")
    assert result.exit_code == 130
    document = report_in(here / "both")
    assert [run["run"] for run in document["runs"]] == [str(bee_run)] and document["interrupted"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sharpness", "--ensemble"], "two evaluations: ask for one"),
        (["--sharpness", "--rho", "0"], "--rho 0: a radius must be above 0"),
        (["--sharpness", "--rho", "nan"], "--rho nan: a radius must be above 0"),
        (["--sharpness", "--rho", "1e39"], "at most 1e+06"),
        (["--sharpness", "--adaptive-rho", "-1"], "--adaptive-rho -1: a radius must be above 0"),
        (["--sharpness", "--points", "4"], "--points 4: give an odd number from 3"),
        (["--sharpness", "--per-class"], "no figures of classes: leave out --per-class"),
        (["--rho", "0.1"], "--rho belongs to the measure of sharpness: add --sharpness"),
        (["--adaptive-rho", "0.1"], "--adaptive-rho belongs to the measure of sharpness"),
        (["--limit", "3"], "--limit belongs to the measure of sharpness"),
        (["--sharpness", "--split", "tset"], "Did you mean 'test'"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(fgvc, bee_run: Path, arguments, message) -> None:
    result = fgvc("evaluate", bee_run, *arguments)
    assert result.exit_code == 2 and message in result.stderr
    assert len([line for line in result.stderr.splitlines() if "error" in line]) == 1
    assert not (bee_run / "evaluation").exists()


def test_the_same_run_twice_is_refused(fgvc, bee_run: Path) -> None:
    result = sharpness(fgvc, bee_run, bee_run / "model.safetensors")
    assert result.exit_code == 2 and "is named twice" in result.stderr


def test_a_model_file_alone_needs_to_be_told_the_data(fgvc, bee_model: Path, bee_run: Path, tmp_path: Path) -> None:
    alone = shutil.copy(bee_model, tmp_path / "bees.safetensors")
    refused = sharpness(fgvc, alone)
    assert refused.exit_code == 2 and "--data" in refused.stderr
    result = sharpness(fgvc, alone, "--data", tmp_path / "insects", "--out", tmp_path / "new")
    assert result.exit_code == 0, result.stderr
    assert report_in(tmp_path / "new")["runs"][0]["run"] == str(alone)


def test_bf16_is_computed_where_it_is_asked_for(fgvc, bee_run: Path) -> None:
    auto = json.loads(sharpness(fgvc, bee_run, "--json").stdout)
    bf16 = json.loads(sharpness(fgvc, bee_run, "--precision", "bf16", "--json").stdout)
    assert (auto["precision"], bf16["precision"]) == ("fp32", "bf16")
    rises = [document["runs"][0]["rises"][-1]["gradient"] for document in (auto, bf16)]
    assert rises[0] != rises[1] and rises[0] == pytest.approx(rises[1], rel=0.1)
    assert torch.is_grad_enabled()


def test_what_a_run_on_train_and_val_was_trained_on_holds_both(fgvc, bee_run: Path, tmp_path: Path) -> None:
    config = bee_run / "config.toml"
    config.write_text(config.read_text() + 'train_on = "train+val"\n')
    without = json.loads(sharpness(fgvc, bee_run, "--json").stdout)
    assert (without["runs"][0]["split"], without["runs"][0]["images_available"]) == ("train", 12)
    shutil.copytree(tmp_path / "insects/train", tmp_path / "insects/val")
    both = json.loads(sharpness(fgvc, bee_run, "--json").stdout)
    assert (both["runs"][0]["split"], both["runs"][0]["images_available"]) == ("train+val", 24)
    assert without["notes"] == both["notes"] == []


def test_the_tables_fit_a_narrow_terminal(fgvc, bee_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fgvc_cli.cli import console

    monkeypatch.setenv("COLUMNS", "60")
    console._console.cache_clear()
    try:
        tables = sharpness(fgvc, bee_run).stdout.partition("\n\n")[2].partition("written:")[0]
    finally:
        console._console.cache_clear()
    assert "0.025" in tables and max(map(len, tables.splitlines())) <= 60
