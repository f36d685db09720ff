"""docs/evaluate.md: its commands run, their output has the form shown, and its keys are those of the files."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from fgvc_cli.evaluation import run_sharpness

PAGE = "docs/evaluate.md"
QUICK = ["--limit", "6", "--points", "3"]


@pytest.fixture(scope="module")
def home(page, demo, tmp_path_factory) -> Path:
    """A folder with the runs that the page names: copies of one, with different predictions."""
    import torch

    from fgvc_cli.runs import model_file

    home = tmp_path_factory.mktemp("home")
    first = demo / "first"
    for number, name in enumerate(sorted(set(re.findall(r"runs/([\w-]+)", page(PAGE).text)))):
        shutil.copytree(first, home / "runs" / name)
        state, document = model_file.load(first / "model.safetensors")
        state["head.classifier.bias"] = torch.randn(12, generator=torch.Generator().manual_seed(number))
        model_file.save(home / "runs" / name / "model.safetensors", state, document)
    return home


@pytest.fixture
def run(home, demo, fgvc, monkeypatch):
    """Function that runs a command with quick settings, without drawing."""
    monkeypatch.chdir(home)
    monkeypatch.setenv("FGVC_RUNS", "runs")
    monkeypatch.setattr(run_sharpness, "draw_landscape", lambda path, *_: path.touch())

    def run(*words: str):
        quick = QUICK if "--sharpness" in words else []
        result = fgvc(*words, "--cache", demo / "cache", "--device", "cpu", *quick)
        assert result.exit_code == 0, result.stderr
        return result.stdout

    return run


def test_the_commands_of_the_page_run(page, run):
    for block in page(PAGE).blocks("sh"):
        for line in block.splitlines():
            run(*shlex.split(line)[1:])


def test_the_keys_of_the_page_are_those_of_the_files(page, run):
    alone = json.loads(run("evaluate", "runs/resnet18-sgd", "--json"))
    summary = json.loads(run("evaluate", "runs/resnet18-sgd", "runs/resnet18-sam", "--ensemble", "--json"))
    rows = {row[0].strip("`"): row[1] for row in page(PAGE).rows("### Files of an ensemble")}
    assert set(rows) == set(summary) - set(alone) - {"runs"}
    for key in ("together", "over_best"):
        assert set(re.findall(r"`(\w+)`", rows[key])) == set(summary[key])
    text = page(PAGE).section("### Files of an ensemble")
    named = set(re.findall(r"`(\w+)`", text[text.index("A pair has") :])) | set(re.findall(r"`(\w+)`", rows["pairs"]))
    assert named == set(summary["pairs"][0])
    (measured,) = json.loads(run("evaluate", "runs/resnet18-sgd", "--sharpness", "--json"))["runs"]
    rows = {row[0].strip("`"): row[1] for row in page(PAGE).rows("### Files of sharpness")}
    assert set(rows) == set(measured)
    for key in ("lines", "landscape"):
        assert set(re.findall(r"`(\w+)`", rows[key])) == set(measured[key])
    assert set(re.findall(r"`(\w+)`", rows["rises"])) == set(measured["rises"][0]) - {"radius", "adaptive_radius"}
