"""docs/report-page.md: its tables are those of the command and of the page, and it stops as it says."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from fgvc_cli.report.confusion_chart import COUNTED_CLASSES
from fgvc_cli.report.detail_sections import EXTREME, SHOWN

PAGE = "docs/report-page.md"
TINY = [
    "--backbone", "timm/test_resnet", "--set", "dataset.train=2", "--set", "dataset.val=1", "--set", "dataset.test=2",
    "--set", "dataset.size=64", "--image-size", "32", "--batch-size", "6", "--epochs", "1", "--weights", "none",
    "--device", "cpu",
]  # fmt: skip


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def home(fgvc, cache, tmp_path_factory) -> Path:
    """A folder with runs/RUN, trained on the demo images."""
    home = tmp_path_factory.mktemp("home")
    result = fgvc("train", *TINY, "--cache", cache, "--out", home / "runs/RUN")
    assert result.exit_code == 0, result.stderr
    return home


@pytest.fixture
def at_home(home, monkeypatch) -> Path:
    monkeypatch.chdir(home)
    return home


def test_the_command_of_the_page_makes_the_parts_of_the_page(page, fgvc, at_home, cache):
    (commands,) = page(PAGE).blocks("sh")
    result = fgvc(*shlex.split(commands.splitlines()[0])[1:], "--cache", cache, "--device", "cpu")
    assert result.exit_code == 0, result.stderr
    html = (at_home / "runs/RUN/report.html").read_text(encoding="utf-8")
    headings = re.findall(r"<h2[^>]*><bdi>(.*?)</bdi></h2>", html)
    assert ["head", *headings] == [row[0] for row in page(PAGE).rows("## What is on it")]
    assert len(html.encode()) < 450_000 and "450 kB" in page(PAGE).text
    shown = [line.split()[0] for line in page(PAGE).blocks("")[0].splitlines()[2:]]
    printed = [line.split()[0] for line in result.stdout.splitlines()]
    assert [line if line.endswith(":") else "" for line in shown[1:]] == [
        line if line.endswith(":") else "" for line in printed[1:]
    ]


def test_the_numbers_of_the_page_are_those_of_the_code(page):
    parts = {row[0]: row[1] for row in page(PAGE).rows("## What is on it")}
    assert f"up to {SHOWN} classes" in parts["Accuracy by class"]
    assert f"the worst and the best {EXTREME}" in parts["Accuracy by class"]
    assert f"up to {COUNTED_CLASSES} classes" in parts["Confusion"]


def test_the_keys_of_the_json_document(page, fgvc, at_home, cache):
    result = fgvc("report", "runs/RUN", "--json", "--images", 1, "--cache", cache, "--device", "cpu")
    document = json.loads(result.stdout)
    above = page(PAGE).section("## The JSON document").split("A run has")[0]
    assert {*document, "comparison"} == set(re.findall(r"`(\w+)`", above)), "a run alone is compared with nothing"
    rows = page(PAGE).rows("## The JSON document")
    (run,) = document["runs"]
    assert [row[0].strip("`") for row in rows] == list(run)
    (occlusion,) = (row for row in rows if row[0] == "`occlusion`")
    assert set(run["occlusion"][0]) == set(re.findall(r"`(\w+)`", occlusion[1]))


def test_the_exit_codes_are_those_of_the_page(page, fgvc, at_home, cache, tmp_path, monkeypatch):
    from fgvc_cli.report import run_report

    assert [row[0] for row in page(PAGE).rows("## What is missing")] == ["0", "1", "2", "3", "130"]
    options = ["--cache", cache, "--device", "cpu", "--images", 1]
    assert fgvc("report", "runs/RUN", *options).exit_code == 0
    assert fgvc("report", "runs/NONE", *options).exit_code == 1
    assert fgvc("report", "runs/RUN", *options, "--split", "tset").exit_code == 2
    copy = shutil.copytree("runs/RUN", tmp_path / "copy")
    config = copy / "config.toml"
    config.write_text(config.read_text().replace("fgvc-cli:demo", "fgvc-cli:gone"))
    assert fgvc("report", copy, *options).exit_code == 3

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run_report, "show_examples", interrupted)
    assert fgvc("report", "runs/RUN", *options).exit_code == 130
