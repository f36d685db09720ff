"""`fgvc evaluate` from end to end, on a classifier that always says "bee"."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from fgvc_cli.registry import get_registry


def summary_of(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text())


def test_an_emptied_config_is_damage_and_not_the_demo(fgvc, bee_run: Path) -> None:
    (bee_run / "config.toml").write_text("")
    result = fgvc("evaluate", bee_run)
    assert result.exit_code == 1 and "damaged: it has no [dataset]" in result.stderr


def test_a_run_is_scored_on_its_test_split(fgvc, bee_run: Path) -> None:
    result = fgvc("evaluate", bee_run)
    assert result.exit_code == 0, result.stderr
    folder = bee_run / "evaluation" / "test"
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
    assert "60.0 %" in result.stdout
    assert "ant/0.png" in result.stdout
    assert f"run        {bee_run}" in result.stderr


def test_predictions_have_a_line_an_image(fgvc, bee_run: Path) -> None:
    fgvc("evaluate", "--run", bee_run)
    with (bee_run / "evaluation/test/predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 10
    assert rows[0] == {
        "key": "ant/0.png", "true": "ant", "predicted": "bee", "probability": "0.600000", "correct": "0",
        "true_probability": "0.300000", "true_rank": "2",
        "predicted2": "ant", "probability2": "0.300000", "predicted3": "cat", "probability3": "0.100000",
    }  # fmt: skip
    assert sum(row["correct"] == "1" for row in rows) == 6
    with (bee_run / "evaluation/test/per_class.csv").open(newline="") as file:
        classes = {row["class"]: row for row in csv.DictReader(file)}
    assert (classes["bee"]["recall"], classes["cat"]["recall"], classes["cat"]["images"]) == ("1.0", "", "0")


def test_json_prints_the_summary_and_nothing_else(fgvc, bee_run: Path) -> None:
    result = fgvc("evaluate", bee_run, "--json")
    assert json.loads(result.stdout) == summary_of(bee_run / "evaluation/test")


def test_an_evaluation_in_the_run_is_replaced(fgvc, bee_run: Path) -> None:
    fgvc("evaluate", bee_run)
    (bee_run / "evaluation/test/predictions.csv").write_text("of before")
    assert fgvc("evaluate", bee_run).exit_code == 0
    assert (bee_run / "evaluation/test/predictions.csv").read_text().startswith("key,true,predicted")


def test_out_is_refused_where_something_is(fgvc, bee_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "results"
    assert fgvc("evaluate", bee_run, "--out", out).exit_code == 0
    assert (out / "confusion.png").is_file()
    assert not (bee_run / "evaluation").exists()
    (out / "summary.json").write_text("mine")
    refused = fgvc("evaluate", bee_run, "--out", out)
    assert refused.exit_code == 2
    assert "--force" in refused.stderr
    assert (out / "summary.json").read_text() == "mine"
    assert fgvc("evaluate", bee_run, "--out", out, "--force").exit_code == 0
    assert summary_of(out)["images"] == 10


def test_unreadable_images_are_named_and_change_the_exit_code(fgvc, bee_run: Path, tmp_path: Path) -> None:
    (tmp_path / "insects/test/bee/3.png").write_bytes(b"\x89PNG broken")
    result = fgvc("evaluate", bee_run)
    assert result.exit_code == 3
    assert "bee/3.png" in result.stderr
    summary = summary_of(bee_run / "evaluation/test")
    assert (summary["images"], summary["failed"]) == (9, 1)
    assert summary["failures"][0]["key"] == "bee/3.png"


def test_nothing_readable_is_an_error(fgvc, bee_run: Path, tmp_path: Path) -> None:
    for file in (tmp_path / "insects/test").rglob("*.png"):
        file.write_bytes(b"broken")
    result = fgvc("evaluate", bee_run)
    assert result.exit_code == 1
    assert "None of the 10 images" in result.stderr
    assert not (bee_run / "evaluation").exists()


def test_without_a_test_split_validation_is_taken_and_that_is_said(fgvc, bee_run: Path, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "insects/test")
    result = fgvc("evaluate", bee_run)
    assert result.exit_code == 0, result.stderr
    assert "no test split" in result.stderr
    summary = summary_of(bee_run / "evaluation/val")
    assert (summary["split"], summary["images"]) == ("val", 3)  # a quarter of twelve, held out as in training
    assert "split off from train" in summary["origin"]


def test_of_a_run_that_was_not_trained_nothing_is_said_of_its_training(fgvc, bee_run: Path) -> None:
    config = bee_run / "config.toml"
    config.write_text(config.read_text() + "epochs = 0\n")
    for split in ("val", "train"):
        assert json.loads(fgvc("evaluate", bee_run, "--split", split, "--json").stdout)["notes"] == []


def test_validation_and_training_splits_are_those_of_the_training(fgvc, bee_run: Path) -> None:
    val, train = (json.loads(fgvc("evaluate", bee_run, "--split", s, "--json").stdout) for s in ("val", "train"))
    assert (val["images"], train["images"]) == (3, 9)
    assert "chosen on val" in val["notes"][0]
    assert "learnt these very images" in train["notes"][0]

    def keys(split: str) -> set[str]:
        with (bee_run / f"evaluation/{split}/predictions.csv").open(newline="") as file:
            return {row["key"] for row in csv.DictReader(file)}

    assert not keys("val") & keys("train")


def test_a_run_trained_on_train_and_val_is_scored_as_it_was_trained(fgvc, bee_run: Path, tmp_path: Path) -> None:
    config = bee_run / "config.toml"
    config.write_text(config.read_text() + 'train_on = "train+val"\n')
    train = json.loads(fgvc("evaluate", bee_run, "--split", "train", "--json").stdout)
    assert train["images"] == 12 and "learnt these very images" in train["notes"][0]
    for lacking in ("val", "train+val"):
        result = fgvc("evaluate", bee_run, "--split", lacking)
        assert result.exit_code == 2 and "no such split" in result.stderr and "Splits: train, test." in result.stderr
    (tmp_path / "insects/test").rename(tmp_path / "insects/val")
    for asked, images in ((["--split", "train+val"], 22), (["--split", "val"], 10), ([], 10)):
        found = json.loads(fgvc("evaluate", bee_run, *asked, "--json").stdout)
        assert found["images"] == images and "learnt these very images" in found["notes"][-1]
    shutil.rmtree(tmp_path / "insects/val")
    assert json.loads(fgvc("evaluate", bee_run, "--json").stdout)["split"] == "train"


def test_an_unknown_split_is_refused_with_the_near_one(fgvc, bee_run: Path) -> None:
    result = fgvc("evaluate", bee_run, "--split", "tets")
    assert result.exit_code == 2
    assert "Did you mean 'test'" in result.stderr
    assert "Splits: train, test, val." in result.stderr


def folder_of(tmp_path: Path, **counts: int) -> Path:
    folder = tmp_path / "other"
    source = tmp_path / "insects/train/ant/0.png"
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for i in range(count):
            shutil.copy(source, folder / name / f"{i}.png")
    return folder


def test_another_folder_is_matched_by_class_name(fgvc, bee_run: Path, tmp_path: Path) -> None:
    # Of its own two classes bee is the first and cat the second; the classifier's indices are 1 and 2.
    folder = folder_of(tmp_path, bee=3, cat=1)
    result = fgvc("evaluate", bee_run, "--data", folder)
    assert result.exit_code == 0, result.stderr
    summary = summary_of(bee_run / "evaluation/other-all")
    assert (summary["images"], summary["top1"], summary["classes_present"]) == (4, 0.75, 2)
    assert summary["dataset"] == {"name": "other", "data": str(folder)}


def test_unknown_classes_are_refused_or_left_out(fgvc, bee_run: Path, tmp_path: Path) -> None:
    folder = folder_of(tmp_path, bee=3, wasp=2)
    refused = fgvc("evaluate", bee_run, "--data", folder)
    assert refused.exit_code == 2
    assert "wasp" in refused.stderr
    assert "--ignore-unknown" in refused.stderr
    result = fgvc("evaluate", bee_run, "--data", folder, "--ignore-unknown")
    assert result.exit_code == 0
    assert summary_of(bee_run / "evaluation/other-all")["images"] == 3


def test_a_folder_of_the_same_name_does_not_replace_another(fgvc, bee_run: Path, tmp_path: Path) -> None:
    first = folder_of(tmp_path, bee=2)
    second = Path(shutil.copytree(first, tmp_path / "elsewhere" / "other"))
    assert fgvc("evaluate", bee_run, "--data", first).exit_code == 0
    refused = fgvc("evaluate", bee_run, "--data", second)
    assert refused.exit_code == 1
    assert str(first) in refused.stderr
    assert "--out" in refused.stderr


def test_options_of_the_data_set_can_be_set(fgvc, bee_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    shutil.copytree(tmp_path / "insects/test", folder / "final")
    shutil.copytree(tmp_path / "insects/train", folder / "train")
    refused = fgvc("evaluate", bee_run, "--data", folder)  # "final" is no usual name, and has no images itself
    assert refused.exit_code != 0
    result = fgvc("evaluate", bee_run, "--data", folder, "--set", "dataset.test=final")
    assert result.exit_code == 0, result.stderr
    assert summary_of(bee_run / "evaluation/odd-test")["images"] == 10
    assert fgvc("evaluate", bee_run, "--set", "head.dropout=0.1").exit_code == 2


def test_a_model_file_alone_needs_to_be_told_the_data(fgvc, bee_model: Path, bee_run: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone" / "bees.safetensors"
    alone.parent.mkdir()
    shutil.copy(bee_model, alone)
    refused = fgvc("evaluate", alone)
    assert refused.exit_code == 2
    assert "--data" in refused.stderr
    result = fgvc("evaluate", alone, "--data", tmp_path / "insects")
    assert result.exit_code == 0, result.stderr
    assert summary_of(alone.parent / "evaluation/insects-test")["run"] == str(alone)


def test_the_newest_finished_run_is_taken_and_named(fgvc, bee_run: Path) -> None:
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


def test_two_different_runs_are_refused(fgvc, bee_run: Path, tmp_path: Path) -> None:
    result = fgvc("evaluate", bee_run, "--run", tmp_path)
    assert result.exit_code == 2
    assert str(bee_run) in result.stderr
    assert str(tmp_path) in result.stderr


def test_the_worst_classes_are_listed_unless_all_are_asked_for(fgvc, bee_run: Path) -> None:
    few = fgvc("evaluate", bee_run).stdout
    every = fgvc("evaluate", bee_run, "--per-class").stdout
    assert "cat" not in few  # it has no image in the split
    assert "cat" in every


def test_the_optimizer_of_the_run_need_not_be_installed(fgvc, bee_run: Path) -> None:
    with (bee_run / "config.toml").open("a") as file:
        file.write("[optimizer]\nname = 'no-such-optimizer'\n")
    assert fgvc("evaluate", bee_run).exit_code == 0
    assert not any(c.name == "no-such-optimizer" for c in get_registry().components("optimizer"))


def test_closing_lines_can_be_pasted(fgvc, bee_run: Path) -> None:
    lines = fgvc("evaluate", bee_run).stdout.splitlines()
    command = next(line for line in lines if line.startswith("next: ")).removeprefix("next: ").split()
    assert command[:2] == ["fgvc", "predict"]
    again = fgvc(*command[1:], "--json")
    assert again.exit_code == 0
    assert json.loads(again.stdout)["predictions"][0]["classes"][0]["class"] == "bee"


def test_the_confusion_matrix_is_a_picture(fgvc, bee_run: Path) -> None:
    fgvc("evaluate", bee_run)
    with Image.open(bee_run / "evaluation/test/confusion.png") as image:
        image.verify()
        assert min(image.size) > 300
