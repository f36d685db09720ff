"""`fgvc evaluate --ensemble` from end to end, on classifiers that always say the same class."""

from __future__ import annotations

import csv
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image


def ensemble(fgvc: Any, *arguments: Any) -> Any:
    return fgvc("evaluate", *arguments, "--ensemble")


def test_the_average_of_two_runs_is_scored_and_written(fgvc, bee_run: Path, another_run, here: Path) -> None:
    ant_run = another_run("ant-run")
    result = ensemble(fgvc, bee_run, ant_run)
    assert result.exit_code == 0, result.stderr
    (folder,) = (here / "ensemble").iterdir()
    assert {file.name for file in folder.iterdir()} == {
        "summary.json", "predictions.csv", "per_class.csv", "confusion.png",
    }  # fmt: skip
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["runs"] == [str(bee_run), str(ant_run)] and "run" not in summary
    assert (summary["images"], summary["top1"], summary["split"]) == (10, 0.4, "test")  # 4 of ant, 6 of bee
    with (folder / "predictions.csv").open(newline="") as file:
        first = next(csv.DictReader(file))
    assert (first["true"], first["predicted"], first["probability"]) == ("ant", "ant", "0.550000")
    with Image.open(folder / "confusion.png") as image:
        image.verify()


def test_the_figures_of_runs_and_pairs_are_those_worked_out_by_hand(fgvc, bee_run, another_run, here) -> None:
    ant_run = another_run("ant-run")
    summary = json.loads(ensemble(fgvc, bee_run, ant_run, "--json").stdout)
    bee, ant = summary["members"]
    assert (bee["top1"], ant["top1"], bee["run"]) == (0.6, 0.4, str(bee_run))
    assert ant["loss"] == pytest.approx(-(4 * math.log(0.8) + 6 * math.log(0.1)) / 10)
    assert summary["loss"] == pytest.approx(-(4 * math.log(0.55) + 6 * math.log(0.35)) / 10)
    (pair,) = summary["pairs"]
    assert pair == {
        "runs": [str(bee_run), str(ant_run)], "both_right": 0, "first_only": 0.6, "second_only": 0.4, "one_right": 1,
        "both_wrong": 0, "both_wrong_same_class": 0, "different_predictions": 1, "q": -1,
    }  # fmt: skip
    assert summary["together"] == {"any_right": 1, "all_right": 0, "images_by_right": [0, 10, 0]}
    over = summary["over_best"]
    assert (over["run"], over["ensemble_only"], over["member_only"]) == (str(bee_run), 4, 6)
    assert over["difference"] == pytest.approx(-0.2) and over["p_value"] == pytest.approx(0.754, abs=1e-3)
    assert not over["significant"]


def test_a_run_is_as_good_in_an_ensemble_as_alone(fgvc, bee_run, another_run, here) -> None:
    ant_run = another_run("ant-run")
    members = json.loads(ensemble(fgvc, bee_run, ant_run, "--json").stdout)["members"]
    for run, member in zip((bee_run, ant_run), members, strict=True):
        alone = json.loads(fgvc("evaluate", run, "--json").stdout)
        assert {name: alone[name] for name in member} == member


def test_what_is_printed_names_runs_pairs_and_the_verdict(fgvc, bee_run, another_run, here) -> None:
    ant_run = another_run("ant-run")
    result = ensemble(fgvc, bee_run, ant_run)
    assert f"run        {bee_run}\nrun        {ant_run}\nimages     10, test of" in result.stderr
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines if "%" in line][:3] == ["bee-run", "ant-run", "ensemble"]
    (pair,) = (line for line in lines if line.lstrip().startswith("bee-run + ant-run"))
    assert pair.split()[3:] == ["100.0", "%", "0.0", "%", "0.0", "%", "100.0", "%", "-1.00"]
    assert "right in at least one run: 100.0 % of the images, in every one: 0.0 %, in none: 0.0 %" in lines
    (verdict,) = (line for line in lines if line.startswith("ensemble over the best run (bee-run)"))
    assert "-20.0 points" in verdict and "within noise (exact McNemar test, p = 0.75)" in verdict


def test_the_next_command_can_be_pasted(fgvc, bee_run, another_run, here) -> None:
    lines = ensemble(fgvc, bee_run, another_run("ant-run")).stdout.splitlines()
    command = next(line for line in lines if line.startswith("next: ")).removeprefix("next: ").split()
    assert command[:2] == ["fgvc", "explain"] and command.count("--run") == 2
    assert fgvc(*command[1:], "--device", "cpu").exit_code == 0


def test_the_results_go_where_out_says_and_replace_nothing_unasked(fgvc, bee_run, another_run, here) -> None:
    ant_run = another_run("ant-run")
    assert ensemble(fgvc, bee_run, ant_run, "--out", "both").exit_code == 0
    refused = ensemble(fgvc, bee_run, ant_run, "--out", "both")
    assert refused.exit_code == 2 and "--force" in refused.stderr
    assert ensemble(fgvc, bee_run, ant_run, "--out", "both", "--force").exit_code == 0
    assert [path.name for path in here.iterdir()] == ["both"]


def test_runs_of_other_classes_are_refused_with_what_differs(fgvc, bee_run, another_run, here) -> None:
    wasp = another_run("wasp-run", {"ant": 0.2, "bee": 0.2, "wasp": 0.6})
    fewer = another_run("fewer-run", {"ant": 0.5, "bee": 0.5})
    refused = ensemble(fgvc, bee_run, wasp)
    assert refused.exit_code == 2
    assert f"{wasp} does not know 'cat' and knows 'wasp', which {bee_run} does not" in refused.stderr
    assert f"{fewer} does not know 'cat': only runs" in ensemble(fgvc, bee_run, fewer).stderr
    assert f"{bee_run} knows 'cat', which {fewer} does not" in ensemble(fgvc, fewer, bee_run).stderr
    assert not list(here.iterdir())


def test_one_run_or_one_run_twice_is_no_ensemble(fgvc, bee_run: Path, here) -> None:
    one = ensemble(fgvc, bee_run)
    assert one.exit_code == 2 and "name two or more" in one.stderr
    for again in (bee_run, bee_run / "model.safetensors", here / "../bee-run"):
        twice = ensemble(fgvc, bee_run, "--run", again)
        assert twice.exit_code == 2 and "is named twice" in twice.stderr, again


def test_several_runs_need_to_be_told_what_for(fgvc, bee_run, another_run) -> None:
    ant_run = another_run("ant-run")
    refused = fgvc("evaluate", bee_run, ant_run)
    assert refused.exit_code == 2
    assert f"2 runs are named, {bee_run} and {ant_run}" in refused.stderr
    assert all(way in refused.stderr for way in ("--ensemble", "--sharpness", "fgvc compare"))
    assert fgvc("evaluate", bee_run, "--run", bee_run).exit_code == 0


def test_unreadable_images_are_told_once_and_change_the_exit_code(fgvc, bee_run, another_run, here, tmp_path) -> None:
    (tmp_path / "insects/test/bee/3.png").write_bytes(b"\x89PNG broken")
    result = ensemble(fgvc, bee_run, another_run("ant-run"), "--out", "both")
    assert result.exit_code == 3
    assert result.stderr.count("bee/3.png") == 1
    summary = json.loads(Path("both/summary.json").read_text())
    assert (summary["images"], summary["failed"], summary["top1"]) == (9, 1, 4 / 9)
    assert [member["images"] for member in summary["members"]] == [9, 9]


def test_nothing_readable_is_an_error(fgvc, bee_run, another_run, here, tmp_path) -> None:
    for file in (tmp_path / "insects/test").rglob("*.png"):
        file.write_bytes(b"broken")
    result = ensemble(fgvc, bee_run, another_run("ant-run"))
    assert result.exit_code == 1 and "None of the 10 images" in result.stderr
    assert not list(here.iterdir())


def test_scores_that_are_not_finite_count_as_wrong(fgvc, bee_run, another_run, here) -> None:
    broken = another_run("broken-run", {"ant": 0.2, "bee": math.inf, "cat": 0.2})
    result = ensemble(fgvc, bee_run, broken, "--out", "both")
    assert result.exit_code == 0, result.stderr
    summary = json.loads(Path("both/summary.json").read_text())
    assert (summary["not_finite"], summary["top1"], summary["loss"]) == (10, 0, None)
    assert summary["members"][0]["top1"] == 0.6 and summary["over_best"]["member_only"] == 6
    assert "10 images got scores that are not finite; they count as wrong." in result.stdout


def test_a_run_that_has_learnt_the_images_is_named(fgvc, bee_run, another_run, here) -> None:
    ant_run = another_run("ant-run")
    config = ant_run / "config.toml"
    config.write_text(config.read_text().replace("seed = 0", "seed = 1"))
    result = ensemble(fgvc, bee_run, ant_run, "--split", "val", "--json")
    notes = json.loads(result.stdout)["notes"]
    assert f"The checkpoint of {bee_run} was chosen on 3 of these 3 images" in notes[0]
    assert any(note.startswith(f"{ant_run} has learnt") for note in notes)
    assert all(note in result.stderr for note in notes)


def test_without_a_test_split_the_first_runs_validation_split_is_taken(fgvc, bee_run, another_run, here, tmp_path):
    ant_run = another_run("ant-run")
    shutil.rmtree(tmp_path / "insects/test")
    notes = json.loads(ensemble(fgvc, bee_run, ant_run, "--json").stdout)["notes"]
    assert notes[0] == f"{bee_run}: The run's dataset has no test split, so this is its validation split."


def test_other_images_can_be_classified(fgvc, bee_run, another_run, here, tmp_path) -> None:
    (tmp_path / "other/bee").mkdir(parents=True)
    shutil.copy(tmp_path / "insects/train/ant/0.png", tmp_path / "other/bee")
    summary = json.loads(ensemble(fgvc, bee_run, another_run("ant-run"), "--data", tmp_path / "other", "--json").stdout)
    assert (summary["images"], summary["split"], summary["notes"]) == (1, "all", [])
    assert [member["top1"] for member in summary["members"]] == [1, 0]


def test_three_runs_make_three_pairs(fgvc, bee_run, another_run, here) -> None:
    runs = [bee_run, another_run("ant-run"), another_run("cat-run", {"bee": 0.1, "cat": 0.6, "ant": 0.3})]
    summary = json.loads(ensemble(fgvc, *runs, "--json").stdout)
    assert [pair["runs"] for pair in summary["pairs"]] == [
        [str(runs[0]), str(runs[1])], [str(runs[0]), str(runs[2])], [str(runs[1]), str(runs[2])],
    ]  # fmt: skip
    ant_image = next(row for row in summary["per_class"] if row["class"] == "ant")
    assert ant_image["top1"] == 1  # (0.3 + 0.8 + 0.3) / 3 is the largest
