"""docs/bench.md: its tables are those of the command, the columns, the files and the JSON document."""

from __future__ import annotations

import json
import re
import shlex
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import torch

from fgvc_cli.benchmarking import combinations, comparing, files, memory, run, timing
from fgvc_cli.benchmarking.results import FORMAT, Feed, Report, Row, Timing, Work
from fgvc_cli.benchmarking.run import machine_facts
from fgvc_cli.cli import bench_tables
from fgvc_cli.config.recipes import read_recipe
from fgvc_cli.registry import get_registry

PAGE = "docs/bench.md"
TINY = ["--backbone", "timm/test_resnet", "--head", "linear", "--optimizer", "sgd", "--image-size", 32, "--batch-size",
        2, "--seconds", 0.01, "--device", "cpu"]  # fmt: skip


@pytest.fixture(scope="module")
def made(fgvc, tmp_path_factory) -> Path:
    """A folder with a benchmark of one small combination, heat maps included."""
    folder = tmp_path_factory.mktemp("bench") / "small"
    result = fgvc("bench", *TINY, "--explain", "gradcam", "--out", folder)
    assert result.exit_code == 0, result.stderr
    return folder


def code_names(text: str) -> set[str]:
    return set(re.findall(r"`(\w+)`", text))


def test_the_defaults_are_those_of_the_code(page):
    defaults = {row[0].strip("`"): row[1] for row in page(PAGE).rows("## Options")}
    cuda, elsewhere = combinations.ON_CUDA, combinations.ELSEWHERE
    assert cuda.image_size is None
    assert defaults["--image-size"] == f"by recipe on CUDA, else {elsewhere.image_size}"
    assert defaults["--batch-size"] == f"{cuda.batch_size} on CUDA, else {elsewhere.batch_size}"
    assert defaults["--seconds"] == f"{cuda.seconds:g} on CUDA, else {elsewhere.seconds:g}"
    names = {k: n.rpartition(":")[2] for k, n in read_recipe(defaults["--recipe"], get_registry()).names().items()}
    text = " ".join(page(PAGE).text.split())
    assert f"(`{names['head']}` and `{names['optimizer']}` in `{defaults['--recipe']}`)" in text


def test_every_column_is_explained(page):
    headings = [column.heading.replace("-\n", "-").replace("\n", " ").strip() for column in bench_tables._columns(())]
    assert [row[0].strip("`") for row in page(PAGE).rows("## What is measured")] == headings


def test_the_figures_are_those_of_the_code(page):
    text = " ".join(page(PAGE).text.split())
    assert f"or {timing.MOST_ROUNDS} rounds are done" in text
    assert f"was timed fewer than {comparing.LEAST_ROUNDS} times" in text
    assert f"to a multiple of {memory.STEP};" in text
    registry = get_registry()
    count = 1
    for kind in ("backbone", "head", "optimizer"):
        count *= len([c for c in registry.components(kind) if c.builtin])  # type: ignore[arg-type]
    assert f"all {count} built-in combinations" in text


def test_the_files(page, made):
    named = [row[0].strip("`") for row in page(PAGE).rows("## Files")]
    assert named == [files.JSON_FILE, files.CSV_FILE, files.CHART_FILE]
    assert sorted(named) == sorted(path.name for path in made.iterdir())


def test_the_keys_of_the_json_document(page, made):
    section = " ".join(page(PAGE).section("## The JSON document").split())
    document = json.loads((made / "bench.json").read_text())
    whole, machine = section.split("`machine` has")
    assert code_names(whole) == set(document) == {"format", *(field.name for field in fields(Report))}
    assert f"`format` ({FORMAT})" in whole
    facts = code_names(machine.split("A row has")[0])
    assert facts == set(document["machine"]) == {*machine_facts(torch.device("cpu")), "multiply_adds_per_second"}
    row, work = (page(PAGE).rows("## The JSON document", table) for table in (0, 1))
    assert [cells[0].strip("`") for cells in row] == [field.name for field in fields(Row)]
    keys = [cells[0].strip("`") for cells in work]
    assert set(keys) == {"images_per_second", *(field.name for field in fields(Work))}
    (measured,) = document["rows"]
    assert set(keys) == set(measured["update"]) == set(measured["explain"]["gradcam"])
    (of_timing,) = [cells[1] for cells in work if cells[0] == "`timing`"]
    assert code_names(of_timing) == {field.name for field in fields(Timing)}
    assert code_names(section.split("A feed of the pipeline has")[1]) == {field.name for field in fields(Feed)}


def test_the_commands_of_the_page(page, fgvc, made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    report = files.read_report(made)
    monkeypatch.setattr(run, "bench", lambda *_: report)
    measure, compare = (shlex.split(block)[1:] for block in page(PAGE).blocks("sh"))
    for out in ("before", "after"):
        assert fgvc(*measure, "--out", f"bench/{out}").exit_code == 0
    result = fgvc(*compare)
    assert result.exit_code == 0 and "timm/test_resnet" in result.stdout


def test_the_sample_has_the_columns_that_the_table_has(page):
    (sample,) = page(PAGE).blocks("")
    assert shlex.split(sample.splitlines()[0])[:3] == ["$", "fgvc", "bench"]
    for column in bench_tables._columns(())[1:]:  # the batch is the same in all rows
        assert all(line in sample for line in column.heading.split("\n"))


def test_the_exit_codes(page, fgvc, made, tmp_path, monkeypatch):
    assert [row[0] for row in page(PAGE).rows("## Exit codes")] == ["0", "1", "2", "130", "143"]
    assert fgvc("bench", *TINY, "--out", made).exit_code == 2
    too_small = ["--backbone", "swin_t", "--head", "linear", "--optimizer", "sgd", "--image-size", 20]
    assert fgvc("bench", *too_small, "--out", tmp_path / "a").exit_code == 1
    report = files.read_report(made)
    monkeypatch.setattr(run, "bench", lambda *_: Report(report.machine, report.settings, interrupted=True))
    assert fgvc("bench", "--out", tmp_path / "b").exit_code == 130
    monkeypatch.setattr(run, "bench", lambda *_: sys.exit(143))  # as the program hears the signal
    assert fgvc("bench", "--out", tmp_path / "c").exit_code == 143
