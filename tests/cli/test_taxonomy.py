"""`fgvc predict --sure` and the levels of `fgvc evaluate`, on a classifier that always predicts "bee"."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import fgvc_cli
from fgvc_cli.runs import model_file

LEVELS = ["species", "kind"]
ANCESTORS = {"ant": ["insect"], "bee": ["insect"], "cat": ["mammal"]}


def describe(run: Path, taxonomy: Any) -> None:
    """Write a taxonomy into the model file of a run."""
    tensors, document = model_file.load(run / "model.safetensors")
    model_file.save(run / "model.safetensors", tensors, {**document, "taxonomy": taxonomy})


@pytest.fixture
def kinds_run(bee_run: Path) -> Path:
    describe(bee_run, {"levels": LEVELS, "ancestors": ANCESTORS})
    return bee_run


@pytest.fixture
def photo(tmp_path: Path, bee_run: Path) -> Path:
    return tmp_path / "insects/train/ant/0.png"


@pytest.fixture
def kinds_file(tmp_path: Path) -> Path:
    file = tmp_path / "kinds.csv"
    file.write_text("class,kind\n" + "".join(f"{name},{of[0]}\n" for name, of in ANCESTORS.items()))
    return file


def test_predict_names_the_group_that_is_sure(fgvc, kinds_run: Path, photo: Path) -> None:
    table = fgvc("predict", photo, "--run", kinds_run, "--top-k", 2, "--sure", 0.9)
    assert table.exit_code == 0, table.stderr
    assert [line.split() for line in table.stdout.splitlines()[1:]] == [
        [str(photo), "insect", "(kind)", "90.0", "%"], ["bee", "60.0", "%"], ["ant", "30.0", "%"],
    ] or [line.split() for line in table.stdout.splitlines()[2:]] == [
        ["insect", "(kind)", "90.0", "%"], ["bee", "60.0", "%"], ["ant", "30.0", "%"],
    ]  # fmt: skip
    document = json.loads(fgvc("predict", photo, "--run", kinds_run, "--sure", 0.5, "--json").stdout)
    assert document["predictions"][0]["sure"] == {"level": "species", "name": "bee", "probability": 0.6}
    (row,) = csv.DictReader(io.StringIO(fgvc("predict", photo, "--run", kinds_run, "--sure", 1, "--csv").stdout))
    assert (row["sure_level"], row["sure_name"], row["sure_probability"]) == ("", "", "1.000000")
    assert "unsure" in fgvc("predict", photo, "--run", kinds_run, "--sure", 0.95).stdout


def test_without_sure_the_output_stays_as_it_was(fgvc, kinds_run: Path, photo: Path) -> None:
    document = json.loads(fgvc("predict", photo, "--run", kinds_run, "--json").stdout)
    assert "sure" not in document["predictions"][0]
    header = fgvc("predict", photo, "--run", kinds_run, "--csv").stdout.splitlines()[0]
    assert header.split(",")[-1] == "probability_3"


def test_the_python_api_gives_the_same_name(kinds_run: Path, photo: Path, kinds_file: Path) -> None:
    classifier = fgvc_cli.load(kinds_run)
    sure = classifier.predict(photo, sure=0.8).sure
    assert sure is not None and (sure.level, sure.name) == ("kind", "insect")
    assert sure.probability == pytest.approx(0.9)
    assert classifier.predict(photo).sure is None
    assert [p.sure.name for p in classifier.predict([photo], sure=0.8, taxonomy=kinds_file) if p.sure] == ["insect"]


def test_evaluate_scores_every_level(fgvc, kinds_run: Path) -> None:
    result = fgvc("evaluate", kinds_run, "--sure", 0.8)
    assert result.exit_code == 0, result.stderr
    found = json.loads((kinds_run / "evaluation/test/summary.json").read_text())["taxonomy"]
    species, kind = found["levels"]
    assert (species["level"], species["groups"], species["top1"]) == ("species", 3, 0.6)
    assert (kind["level"], kind["groups"], kind["top1"], kind["share"], kind["precision"]) == ("kind", 2, 1, 1, 1)
    assert (found["severity"], found["distance"], found["height"], found["unsure"]) == (1.0, 0.4, 2, 0.0)
    assert found["severity_of_chance"] == pytest.approx(1.5)
    assert "kind" in result.stdout and "severity" in result.stdout
    summary = fgvc_cli.evaluate(kinds_run, sure=0.95)
    assert summary.taxonomy is not None and summary.taxonomy.unsure == 1.0


def test_calibrated_probabilities_are_summed(fgvc, kinds_run: Path, photo: Path) -> None:
    from fgvc_cli.scoring.calibration.stored import Calibration

    assert fgvc_cli.evaluate(kinds_run, sure=0.95).taxonomy.unsure == 1.0
    Calibration(0.5, 10, {"name": "folder", "data": None}, "val").write(kinds_run / "model.safetensors")
    sure = fgvc_cli.load(kinds_run).predict(photo, sure=0.95).sure
    assert sure is not None and (sure.name, sure.probability) == ("insect", pytest.approx(0.45 / 0.46))
    metrics = fgvc_cli.evaluate(kinds_run, sure=0.95).taxonomy
    assert (metrics.unsure, metrics.levels[1].share) == (0.0, 1.0)


def test_the_report_has_a_section(kinds_run: Path) -> None:
    from fgvc_cli.report.detail_sections import taxonomy_section

    metrics = fgvc_cli.evaluate(kinds_run).taxonomy
    assert metrics is not None
    section = taxonomy_section(metrics, "")
    assert "kind 100" in section.subtitle
    assert all(
        text in section.body for text in ("species", "60.0", "1.00 levels up", "at most 2", "random would be 1.50")
    )


def test_a_run_without_taxonomy_takes_one_from_a_file(fgvc, bee_run: Path, photo: Path, kinds_file: Path) -> None:
    assert "severity" not in fgvc("evaluate", bee_run).stdout
    assert "severity" in fgvc("evaluate", bee_run, "--taxonomy", kinds_file).stdout
    assert "insect (kind)" in fgvc("predict", photo, "--run", bee_run, "--sure", 0.9, "--taxonomy", kinds_file).stdout


def test_an_ensemble_scores_every_level(fgvc, kinds_run: Path, here: Path) -> None:
    other = shutil.copytree(kinds_run, kinds_run.parent / "other")
    result = fgvc("evaluate", kinds_run, other, "--ensemble", "--json")
    assert json.loads(result.stdout)["taxonomy"]["levels"][1]["top1"] == 1


def test_a_run_without_groups_refuses_to_be_sure(fgvc, bee_run: Path, photo: Path, kinds_file: Path) -> None:
    for command in (("predict", photo, "--run", bee_run), ("evaluate", bee_run)):
        result = fgvc(*command, "--sure", 0.9)
        assert result.exit_code == 2 and "--taxonomy" in result.stderr and "--sure 0.9" in result.stderr
        assert fgvc(*command, "--sure", 1.5, "--taxonomy", kinds_file).exit_code == 2
    result = fgvc("predict", photo, "--run", bee_run, "--taxonomy", kinds_file)
    assert result.exit_code == 2 and "--sure" in result.stderr
    assert fgvc("evaluate", bee_run, "--sharpness", "--sure", 0.9).exit_code == 2


@pytest.mark.parametrize(
    ("taxonomy", "fact"),
    [
        ([], "taxonomy"),
        ({"levels": LEVELS}, "taxonomy.ancestors"),
        ({"levels": LEVELS, "ancestors": {"ant": "insect"}}, "taxonomy.ancestors.ant"),
        ({"levels": LEVELS, "ancestors": {**ANCESTORS, "dog": ["mammal"]}}, "dog"),
        ({"levels": LEVELS, "ancestors": {"ant": ["insect"]}}, "bee"),
        ({"levels": ["species"] * 2, "ancestors": ANCESTORS}, "species"),
        ({"levels": [str(i) for i in range(99)], "ancestors": {n: ["x"] * 98 for n in ANCESTORS}}, "99 levels"),
        (
            {"levels": ["species", "genus", "family"], "ancestors": {n: ["x", n] for n in ANCESTORS}},
            "two parents",
        ),
    ],
)
def test_a_damaged_taxonomy_in_a_model_file_is_named(
    fgvc, bee_run: Path, photo: Path, taxonomy: Any, fact: str
) -> None:
    describe(bee_run, taxonomy)
    result = fgvc("predict", photo, "--run", bee_run)
    assert result.exit_code == 1
    assert "is damaged" in result.stderr and fact in result.stderr


def test_classes_added_later_are_in_no_group(tmp_path: Path, kinds_run: Path) -> None:
    grown = model_file.read_taxonomy(kinds_run)
    assert grown is not None
    assert grown.with_classes(["dog"]).fault(("ant", "bee", "cat", "dog")) == ""
