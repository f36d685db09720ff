"""docs/evaluate.md: its tables are those of the command, its commands run, and what it prints is what is printed."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
from PIL import Image

from fgvc_cli.evaluation import sharpness
from fgvc_cli.evaluation.evaluate import EvaluationRequest
from fgvc_cli.scoring.metrics import LEVEL

PAGE = "docs/evaluate.md"
TINY = [
    "--backbone", "timm/test_resnet", "--set", "dataset.train=2", "--set", "dataset.val=1", "--set", "dataset.test=2",
    "--set", "dataset.size=64", "--image-size", "32", "--batch-size", "6", "--epochs", "1", "--weights", "none",
    "--device", "cpu",
]  # fmt: skip
QUICK = ["--limit", "6", "--points", "3"]
NUMBER = re.compile(r"[-+−]?\d[\d,]*(\.\d+)?(e[-+]?\d+)?")


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def home(page, fgvc, cache, tmp_path_factory) -> Path:
    """A folder with the runs that the page names, trained on the demo images."""
    home = tmp_path_factory.mktemp("home")
    for seed, optimizer in enumerate(("sgd", "sam")):
        given = ["--optimizer", optimizer, "--seed", seed, "--cache", cache, "--out", home / "runs" / optimizer]
        assert fgvc("train", *TINY, *given).exit_code == 0
    for name in sorted(set(re.findall(r"runs/([\w-]+)", page(PAGE).text))):
        shutil.copytree(home / "runs" / ("sam" if "sam" in name or name == "B" else "sgd"), home / "runs" / name)
    return home


@pytest.fixture
def at_home(home, monkeypatch) -> Path:
    monkeypatch.chdir(home)
    monkeypatch.setenv("FGVC_RUNS", "runs")
    return home


def test_the_defaults_of_sharpness_are_those_of_the_code(page):
    said = {row[0].strip("`"): row[1] for row in page(PAGE).rows("## Options")}
    asked = sharpness.SharpnessRequest(EvaluationRequest([Path("model.safetensors")]))
    for name in ("rho", "limit", "points", "seed"):
        assert said[f"--{name}"] == str(getattr(asked, name))
    text = " ".join(page(PAGE).text.split())
    assert f"{asked.limit} of them spread evenly over the classes" in text
    with_adaptive = sharpness.SharpnessRequest(asked.evaluation, adaptive_rho=1.0).passes
    assert f"{asked.passes} times ({with_adaptive} with `--adaptive-rho`), {asked.points**2 - 1} of them" in text
    assert f"mean over {sharpness.RANDOM_DIRECTIONS} directions" in text
    *some, last = (f"{multiple:g}" for multiple in sharpness.MULTIPLES)
    assert f"r is {', '.join(some)} and {last} times rho" in text
    assert f"below p = {LEVEL:g}" in text


def commands(page, language: str = "sh") -> list[list[str]]:
    return [shlex.split(line)[1:] for block in page(PAGE).blocks(language) for line in block.splitlines()]


def test_the_commands_of_the_page_run(page, fgvc, at_home, cache):
    for command in commands(page):
        result = fgvc(*command, "--cache", cache, "--device", "cpu", *(QUICK if "--sharpness" in command else []))
        assert result.exit_code == 0, result.stderr


def printed(page) -> list[list[str]]:
    """What the page shows of a terminal: a command and the lines that it prints."""
    return [block.splitlines() for block in page(PAGE).blocks("") if block.startswith("$ fgvc evaluate")]


def pattern(line: str) -> str:
    """A line without what differs from run to run."""
    line = re.sub(r"(< )?" + NUMBER.pattern, "#", re.sub(r"the best run \(\S+\)", "the best run", line))
    line = re.sub(r"p = #", "p #", line.replace("within noise", "beyond noise"))
    return " ".join(line.split())


def test_what_is_printed_has_the_form_that_the_page_shows(page, fgvc, at_home, cache):
    assert len(printed(page)) == 2
    for command, *lines in printed(page):
        words = shlex.split(command.removeprefix("$ "))
        result = fgvc(*words[1:], "--cache", cache, "--device", "cpu", *(QUICK if "--sharpness" in words else []))
        assert result.exit_code == 0, result.stderr
        ours = {pattern(line) for line in result.stdout.splitlines()}
        for line in lines:
            if line and line != "...":
                expected = pattern(line)  # a figure that a tiny run does not have may be missing at the end
                assert any(expected == found or (found and expected == f"{found} #") for found in ours), line


def test_the_keys_of_the_ensembles_summary(page, fgvc, at_home, cache):
    alone = json.loads(fgvc("evaluate", "runs/sgd", "--cache", cache, "--json").stdout)
    result = fgvc("evaluate", "runs/sgd", "runs/sam", "--ensemble", "--cache", cache, "--json")
    summary = json.loads(result.stdout)
    rows = {row[0].strip("`"): row[1] for row in page(PAGE).rows("### Files of an ensemble")}
    assert set(rows) == set(summary) - set(alone) - {"runs"}
    for key in ("together", "over_best"):
        assert set(re.findall(r"`(\w+)`", rows[key])) == set(summary[key])
    text = page(PAGE).section("### Files of an ensemble")
    named = set(re.findall(r"`(\w+)`", text[text.index("A pair has") :])) | set(re.findall(r"`(\w+)`", rows["pairs"]))
    assert named == set(summary["pairs"][0])
    files = {path.name for path in next((at_home / "ensemble").iterdir()).iterdir()}
    assert files == set(re.findall(r"`([\w.]+\.(?:json|csv|png))`", text.split("`summary.json` has")[0]))


def test_the_keys_of_the_sharpness_document(page, fgvc, at_home, cache):
    result = fgvc("evaluate", "runs/sgd", "--sharpness", *QUICK, "--cache", cache, "--json")
    (run,) = json.loads(result.stdout)["runs"]
    rows = {row[0].strip("`"): row[1] for row in page(PAGE).rows("### Files of sharpness")}
    assert set(rows) == set(run)
    for key in ("lines", "landscape"):
        assert set(re.findall(r"`(\w+)`", rows[key])) == set(run[key])
    assert set(re.findall(r"`(\w+)`", rows["rises"])) == set(run["rises"][0]) - {"radius", "adaptive_radius"}
    assert {"sharpness.json", "landscape.png"} <= {
        path.name for path in (at_home / "runs/sgd/evaluation/train").iterdir()
    }


def test_the_exit_codes_are_those_of_the_page(page, fgvc, at_home, cache, tmp_path):
    assert {row[0] for row in page(PAGE).rows("## Options", table=1)} == {"0", "1", "2", "3", "130"}
    two = ["evaluate", "runs/sgd", "runs/sam", "--device", "cpu", "--cache", cache]
    assert fgvc(*two).exit_code == 2
    assert fgvc(*two, "--ensemble", "--data", tmp_path / "nothing").exit_code == 1


def test_the_picture_is_of_two_runs(page):
    (name,) = re.findall(r"\((images/[\w.]+)\)", page(PAGE).text)
    with Image.open(page(PAGE).path.parent / name) as image:
        assert image.format == "PNG" and image.width > 1200
