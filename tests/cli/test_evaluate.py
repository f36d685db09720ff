"""`fgvc evaluate` from end to end, on a classifier that always predicts "bee"."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path

import pytest
from PIL import Image


def summary_of(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text())


def test_a_run_is_scored_on_its_test_split(fgvc, bee_run: Path, figures, monkeypatch) -> None:
    figures(monkeypatch)
    folder = bee_run / "evaluation" / "test"
    folder.mkdir(parents=True)
    (folder / "predictions.csv").write_text("of an earlier evaluation")
    result = fgvc("evaluate", bee_run)
    assert result.exit_code == 0, result.stderr
    assert {file.name for file in folder.iterdir()} == {
        "summary.json", "predictions.csv", "per_class.csv", "confusion.png",
    }  # fmt: skip
    summary = summary_of(folder)
    assert (summary["images"], summary["top1"], summary["top5"]) == (10, 0.6, None)
    assert summary["chance"] == pytest.approx({"uniform": 1 / 3, "majority": 0.6})
    assert summary["macro"] == pytest.approx({"precision": 0.3, "recall": 0.5, "f1": 0.375})  # of ant and bee
    assert summary["most_confused"] == [{"true": "ant", "predicted": "bee", "images": 4, "share": 1.0}]
    mistake = summary["most_confident_mistakes"][0]
    assert (mistake["true"], mistake["predicted"]) == ("ant", "bee")
    assert (mistake["probability"], mistake["probability_true"]) == pytest.approx((0.6, 0.3))
    assert Path(mistake["file"]).is_file()
    with (folder / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 10 and sum(row["correct"] == "1" for row in rows) == 6
    assert rows[0] == {
        "key": "ant/0.png", "true": "ant", "predicted": "bee", "probability": "0.600000", "correct": "0",
        "true_probability": "0.300000", "true_rank": "2",
        "predicted2": "ant", "probability2": "0.300000", "predicted3": "cat", "probability3": "0.100000",
    }  # fmt: skip
    with (folder / "per_class.csv").open(newline="") as file:
        classes = {row["class"]: row for row in csv.DictReader(file)}
    assert (classes["bee"]["recall"], classes["cat"]["recall"], classes["cat"]["images"]) == ("1.0", "", "0")
    with Image.open(folder / "confusion.png") as image:
        image.verify()
        assert min(image.size) > 300
    assert "60.0 %" in result.stdout and "ant/0.png" in result.stdout
    assert "cat" not in result.stdout  # it has no image in the split
    assert f"run        {bee_run}" in result.stderr
    command = next(line for line in result.stdout.splitlines() if line.startswith("next: ")).split()[1:]
    assert command[:2] == ["fgvc", "predict"]
    again = fgvc(*command[1:], "--json")
    assert json.loads(again.stdout)["predictions"][0]["classes"][0]["class"] == "bee"


def test_options_of_the_output(fgvc, bee_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "results"
    result = fgvc("evaluate", "--run", bee_run, "--out", out, "--json")
    assert json.loads(result.stdout) == summary_of(out)
    assert (out / "confusion.png").is_file() and not (bee_run / "evaluation").exists()
    (out / "summary.json").write_text("mine")
    refused = fgvc("evaluate", bee_run, "--out", out)
    assert refused.exit_code == 2 and "--force" in refused.stderr
    assert (out / "summary.json").read_text() == "mine"
    every = fgvc("evaluate", bee_run, "--out", out, "--force", "--per-class")
    assert every.exit_code == 0 and "cat" in every.stdout and summary_of(out)["images"] == 10


def test_a_damaged_config_is_refused(fgvc, bee_run: Path) -> None:
    (bee_run / "config.toml").write_text("")
    result = fgvc("evaluate", bee_run)
    assert result.exit_code == 1 and "damaged" in result.stderr


def test_unreadable_images_are_reported_and_skipped(fgvc, bee_run: Path, tmp_path: Path) -> None:
    (tmp_path / "insects/test/bee/3.png").write_bytes(b"\x89PNG broken")
    result = fgvc("evaluate", bee_run)
    assert result.exit_code == 3 and "bee/3.png" in result.stderr
    summary = summary_of(bee_run / "evaluation/test")
    assert (summary["images"], summary["failed"]) == (9, 1)
    assert summary["failures"][0]["key"] == "bee/3.png"
    for file in (tmp_path / "insects/test").rglob("*.png"):
        file.write_bytes(b"broken")
    result = fgvc("evaluate", bee_run, "--out", tmp_path / "none")
    assert result.exit_code == 1 and "none of the 10 images" in result.stderr
    assert not (tmp_path / "none").exists()


def test_validation_and_training_splits_are_those_of_the_training(fgvc, bee_run: Path, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "insects/test")
    result = fgvc("evaluate", bee_run)  # without a test split, the validation split
    assert result.exit_code == 0 and "no test split" in result.stderr
    val = summary_of(bee_run / "evaluation/val")
    train = json.loads(fgvc("evaluate", bee_run, "--split", "train", "--json").stdout)
    assert val["images"] + train["images"] == 12 and val["images"] > 0  # a quarter of twelve on average
    assert "split off from train" in val["origin"]
    assert "selected on val" in val["notes"][0] and "trained on these images" in train["notes"][0]

    def keys(split: str) -> set[str]:
        with (bee_run / f"evaluation/{split}/predictions.csv").open(newline="") as file:
            return {row["key"] for row in csv.DictReader(file)}

    assert not keys("val") & keys("train")
    config = bee_run / "config.toml"
    config.write_text(config.read_text() + "epochs = 0\n")  # what the weights were trained on is unknown
    assert json.loads(fgvc("evaluate", bee_run, "--split", "train", "--json").stdout)["notes"] == []


def test_a_run_trained_on_train_and_val_is_scored_as_it_was_trained(fgvc, bee_run: Path, tmp_path: Path) -> None:
    config = bee_run / "config.toml"
    config.write_text(config.read_text() + 'train_on = "train+val"\n')
    train = json.loads(fgvc("evaluate", bee_run, "--split", "train", "--json").stdout)
    assert train["images"] == 12 and "trained on these images" in train["notes"][0]
    for missing in ("val", "train+val"):
        result = fgvc("evaluate", bee_run, "--split", missing)
        assert result.exit_code == 2 and "Splits: train, test" in result.stderr
    (tmp_path / "insects/test").rename(tmp_path / "insects/val")
    for given, images in ((["--split", "train+val"], 22), ([], 10)):
        found = json.loads(fgvc("evaluate", bee_run, *given, "--json").stdout)
        assert found["images"] == images and "trained on these images" in found["notes"][-1]


def test_an_unknown_split_is_refused(fgvc, bee_run: Path) -> None:
    result = fgvc("evaluate", bee_run, "--split", "tets")
    assert result.exit_code == 2
    assert "--split tets" in result.stderr and "Did you mean 'test'" in result.stderr
    assert "Splits: train, test, val" in result.stderr


def folder_of(tmp_path: Path, **counts: int) -> Path:
    folder = tmp_path / "other"
    source = tmp_path / "insects/train/ant/0.png"
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for i in range(count):
            shutil.copy(source, folder / name / f"{i}.png")
    return folder


def test_other_images_are_matched_by_class_name(fgvc, bee_run: Path, tmp_path: Path) -> None:
    # bee is the first class of the folder and cat the second; the classifier's indices are 1 and 2
    folder = folder_of(tmp_path, bee=3, cat=1)
    result = fgvc("evaluate", bee_run, "--data", folder)
    assert result.exit_code == 0, result.stderr
    summary = summary_of(bee_run / "evaluation/other-all")
    assert (summary["images"], summary["top1"], summary["classes_present"]) == (4, 0.75, 2)
    assert summary["dataset"] == {"name": "other", "data": str(folder)}
    second = Path(shutil.copytree(folder, tmp_path / "elsewhere" / "other"))
    refused = fgvc("evaluate", bee_run, "--data", second)  # the same name, but other images
    assert refused.exit_code == 1 and str(folder) in refused.stderr and "--out" in refused.stderr


def test_unknown_classes_are_refused_or_skipped(fgvc, bee_run: Path, tmp_path: Path) -> None:
    folder = folder_of(tmp_path, bee=3, wasp=2)
    refused = fgvc("evaluate", bee_run, "--data", folder)
    assert refused.exit_code == 2
    assert "wasp" in refused.stderr and "--ignore-unknown" in refused.stderr
    assert fgvc("evaluate", bee_run, "--data", folder, "--ignore-unknown").exit_code == 0
    assert summary_of(bee_run / "evaluation/other-all")["images"] == 3


def test_options_of_the_dataset_can_be_set(fgvc, bee_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    shutil.copytree(tmp_path / "insects/test", folder / "final")
    shutil.copytree(tmp_path / "insects/train", folder / "train")
    assert fgvc("evaluate", bee_run, "--data", folder).exit_code != 0  # "final" is not recognized as a split
    result = fgvc("evaluate", bee_run, "--data", folder, "--set", "dataset.test=final")
    assert result.exit_code == 0, result.stderr
    assert summary_of(bee_run / "evaluation/odd-test")["images"] == 10
    assert fgvc("evaluate", bee_run, "--set", "head.dropout=0.1").exit_code == 2


def test_a_model_file_alone_needs_data(fgvc, bee_model: Path, bee_run: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone" / "bees.safetensors"
    alone.parent.mkdir()
    shutil.copy(bee_model, alone)
    refused = fgvc("evaluate", alone)
    assert refused.exit_code == 2 and "--data" in refused.stderr
    result = fgvc("evaluate", alone, "--data", tmp_path / "insects")
    assert result.exit_code == 0, result.stderr
    assert summary_of(alone.parent / "evaluation/insects-test")["run"] == str(alone)


def test_the_default_is_the_latest_finished_run(fgvc, bee_run: Path) -> None:
    runs = Path(os.environ["FGVC_RUNS"])
    for number, name in enumerate(("newer", "older")):
        shutil.copytree(bee_run, runs / name)
        (runs / name / "summary.json").write_text("{}")
        os.utime(runs / name / "summary.json", (2000 - number, 2000 - number))
    shutil.copytree(bee_run, runs / "unfinished")
    result = fgvc("evaluate")
    assert result.exit_code == 0, result.stderr
    assert f"run        {runs / 'newer'}" in result.stderr
    assert (runs / "newer/evaluation/test/summary.json").is_file()


def test_the_optimizer_of_the_run_need_not_be_installed(fgvc, bee_run: Path) -> None:
    with (bee_run / "config.toml").open("a") as file:
        file.write("[optimizer]\nname = 'no-such-optimizer'\n")
    assert fgvc("evaluate", bee_run).exit_code == 0
