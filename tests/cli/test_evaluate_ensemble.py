"""`fgvc evaluate --ensemble` from end to end, on classifiers that always predict the same class."""

from __future__ import annotations

import csv
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest


def ensemble(fgvc: Any, *arguments: Any) -> Any:
    return fgvc("evaluate", *arguments, "--ensemble")


def test_the_average_of_two_runs_is_scored_written_and_printed(fgvc, bee_run: Path, another_run, here: Path) -> None:
    ant_run = another_run("ant-run")
    result = ensemble(fgvc, bee_run, ant_run)
    assert result.exit_code == 0, result.stderr
    (folder,) = (here / "ensemble").iterdir()
    assert {file.name for file in folder.iterdir()} == {
        "summary.json", "predictions.csv", "per_class.csv", "confusion.png",
    }  # fmt: skip
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["runs"] == [str(bee_run), str(ant_run)] and "run" not in summary
    assert (summary["images"], summary["top1"], summary["split"]) == (10, 0.4, "test")  # 4 ants, 6 bees
    with (folder / "predictions.csv").open(newline="") as file:
        first = next(csv.DictReader(file))
    assert (first["true"], first["predicted"], first["probability"]) == ("ant", "ant", "0.550000")
    assert f"run        {bee_run}\nrun        {ant_run}\nimages     10, test of" in result.stderr
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines if "%" in line][:3] == ["bee-run", "ant-run", "ensemble"]
    (pair,) = (line for line in lines if line.lstrip().startswith("bee-run + ant-run"))
    assert pair.split()[3:] == ["100.0", "%", "0.0", "%", "0.0", "%", "100.0", "%", "-1.00"]
    assert any("in all runs: 0.0 %, in none: 0.0 %" in line for line in lines)
    (verdict,) = (line for line in lines if "the best run (bee-run)" in line)
    assert "-20.0 points" in verdict and "not significant (exact McNemar test, p = 0.75)" in verdict
    command = next(line for line in lines if line.startswith("next: ")).removeprefix("next: ").split()
    assert command[:2] == ["fgvc", "explain"] and command.count("--run") == 2
    assert fgvc(*command[1:], "--device", "cpu").exit_code == 0


def test_the_figures_are_those_computed_by_hand(fgvc, bee_run, another_run, here) -> None:
    ant_run = another_run("ant-run")
    summary = json.loads(ensemble(fgvc, bee_run, ant_run, "--json").stdout)
    bee, ant = summary["members"]
    assert (bee["top1"], ant["top1"], bee["run"]) == (0.6, 0.4, str(bee_run))
    assert ant["loss"] == pytest.approx(-(4 * math.log(0.8) + 6 * math.log(0.1)) / 10)
    assert summary["loss"] == pytest.approx(-(4 * math.log(0.55) + 6 * math.log(0.35)) / 10)
    for run, member in ((bee_run, bee), (ant_run, ant)):
        alone = json.loads(fgvc("evaluate", run, "--json").stdout)
        assert {name: alone[name] for name in member} == member


def test_runs_with_other_classes_are_refused(fgvc, bee_run, another_run, here) -> None:
    wasp = another_run("wasp-run", {"ant": 0.2, "bee": 0.2, "wasp": 0.6})
    fewer = another_run("fewer-run", {"ant": 0.5, "bee": 0.5})
    refused = ensemble(fgvc, bee_run, wasp)
    assert refused.exit_code == 2
    assert f"{wasp} does not have 'cat' and has 'wasp'" in refused.stderr
    assert f"{fewer} does not have 'cat';" in ensemble(fgvc, bee_run, fewer).stderr
    assert f"{bee_run} has 'cat'" in ensemble(fgvc, fewer, bee_run).stderr
    assert not list(here.iterdir())


def test_an_ensemble_has_two_different_runs(fgvc, bee_run: Path, another_run, here) -> None:
    one = ensemble(fgvc, bee_run)
    assert one.exit_code == 2 and "two or more" in one.stderr
    twice = ensemble(fgvc, bee_run, "--run", here / "../bee-run")
    assert twice.exit_code == 2 and "twice" in twice.stderr
    without = fgvc("evaluate", bee_run, another_run("ant-run"))
    assert without.exit_code == 2 and "--ensemble" in without.stderr and "--sharpness" in without.stderr


def test_unreadable_images_are_reported_once_and_skipped(fgvc, bee_run, another_run, here, tmp_path) -> None:
    (tmp_path / "insects/test/bee/3.png").write_bytes(b"\x89PNG broken")
    ant_run = another_run("ant-run")
    result = ensemble(fgvc, bee_run, ant_run, "--out", "both")
    assert result.exit_code == 3
    assert result.stderr.count("bee/3.png") == 1
    summary = json.loads(Path("both/summary.json").read_text())
    assert (summary["images"], summary["failed"], summary["top1"]) == (9, 1, 4 / 9)
    assert [member["images"] for member in summary["members"]] == [9, 9]
    for file in (tmp_path / "insects/test").rglob("*.png"):
        file.write_bytes(b"broken")
    result = ensemble(fgvc, bee_run, ant_run, "--out", "none")
    assert result.exit_code == 1 and "none of the 10 images" in result.stderr
    assert not (here / "none").exists()


def test_without_a_test_split_the_validation_split_of_the_first_run_is_used(fgvc, bee_run, another_run, here, tmp_path):
    ant_run = another_run("ant-run")
    shutil.rmtree(tmp_path / "insects/test")
    summary = json.loads(ensemble(fgvc, bee_run, ant_run, "--json").stdout)
    assert summary["split"] == "val" and summary["notes"][0].startswith(f"{bee_run}: ")
    assert "no test split" in summary["notes"][0]


def test_three_runs_on_other_images(fgvc, bee_run, another_run, here, tmp_path) -> None:
    for name in ("bee", "ant"):
        (tmp_path / "other" / name).mkdir(parents=True)
        shutil.copy(tmp_path / "insects/train/ant/0.png", tmp_path / "other" / name)
    runs = [bee_run, another_run("ant-run"), another_run("cat-run", {"bee": 0.1, "cat": 0.6, "ant": 0.3})]
    summary = json.loads(ensemble(fgvc, *runs, "--data", tmp_path / "other", "--json").stdout)
    assert (summary["images"], summary["split"], summary["notes"]) == (2, "all", [])
    assert [member["top1"] for member in summary["members"]] == [0.5, 0.5, 0]
    assert [pair["runs"] for pair in summary["pairs"]] == [
        [str(runs[0]), str(runs[1])], [str(runs[0]), str(runs[2])], [str(runs[1]), str(runs[2])],
    ]  # fmt: skip
    ant = next(row for row in summary["per_class"] if row["class"] == "ant")
    assert ant["top1"] == 1  # (0.3 + 0.8 + 0.3) / 3 is the largest
