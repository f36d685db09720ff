"""docs/studies.md: its options, files, keys and the example study are those of the program."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from fgvc_cli.experiments.comparison import GROUPS, SORTS
from fgvc_cli.experiments.statistics import RESAMPLES
from fgvc_cli.registry import get_registry
from fgvc_cli.scoring.metrics import LEVEL

ROOT = Path(__file__).parents[2]
PAGE = "docs/studies.md"


def options_of(fgvc, command: str) -> set[str]:
    from fgvc_cli.cli.lazy import builtin_commands

    return {name for p in builtin_commands()[command].loaded().params for name in p.opts if name.startswith("--")}


def test_every_option_of_sweep_is_in_the_table(page, fgvc):
    rows = page(PAGE).rows("## The study")
    listed = {name for row in rows for name in re.findall(r"`(--[\w-]+)`", row[0])}
    assert listed == options_of(fgvc, "sweep") - {"--help"}


def test_what_the_table_says_of_an_option_is_what_its_help_says(page):
    from fgvc_cli.cli.lazy import builtin_commands

    helps = {
        option: p.help for p in builtin_commands()["sweep"].loaded().params for option in p.opts if hasattr(p, "help")
    }
    for cell, _, what in page(PAGE).rows("## The study"):
        names = re.findall(r"`(--[\w-]+)`", cell)
        if len(names) == 1 and names[0] != "--study":
            assert what.replace("`", "") == helps[names[0]], names


def test_orders_groups_and_levels(page):
    text = page(PAGE).text
    assert all(f"`{name}`" in text for name in (*SORTS, *GROUPS[1:]))
    assert f"{RESAMPLES:,} resamples" in text and f"below {LEVEL:g} a difference" in text


def test_ready_studies_are_named(page):
    named = set(re.findall(r"`(report-\w+)`", page(PAGE).section("## Study files")))
    assert named == {component.name for component in get_registry().components("study") if component.builtin}


@pytest.fixture(scope="module")
def study(page, fgvc, tmp_path_factory):
    """The example, its runs made as small as can be, trained."""
    folder = tmp_path_factory.mktemp("studies")
    (folder / "widths.toml").write_text(page(PAGE).files()["widths.toml"])
    small = ["dataset.train=2", "dataset.val=1", "dataset.test=1", "dataset.size=32"]
    command = [
        "--cache", folder / "cache", "sweep", "--config", folder / "widths.toml", "--seeds", 1, "--image-size", 32,
        "--batch-size", 8, "--weights", "none", "--workers", 0, *(word for s in small for word in ("--set", s)),
    ]  # fmt: skip
    listed = fgvc(*command, "--dry-run")
    chosen = fgvc(*command, "--optimizer", "sgd", "--epochs", 1, "--device", "cpu", "--out", folder / "study", "--json")
    assert chosen.exit_code == 0, chosen.stderr
    return folder, listed.stdout, chosen


def test_the_example_has_the_runs_that_the_page_says(page, fgvc, tmp_path):
    (tmp_path / "widths.toml").write_text(page(PAGE).files()["widths.toml"])
    listed = fgvc("sweep", "--config", tmp_path / "widths.toml", "--dry-run").stdout.splitlines()[1:]
    assert len(listed) == 10 and "lists its ten runs" in page(PAGE).text
    assert sum(line.startswith("long-seed") for line in listed) == 2


def test_the_study_of_groceries_can_be_planned(fgvc):
    """Three heads, each with two optimizers; the photographs are not needed to list it."""
    listed = json.loads(fgvc("sweep", "--config", ROOT / "docs/examples/grocery20.toml", "--dry-run", "--json").stdout)
    assert len(listed) == len({(run["head"], run["optimizer"]) for run in listed}) == 6


def test_the_files_of_a_study(page, study):
    folder = study[0] / "study"
    named = {re.sub(r"<cell>-seed<N>", "long-seed0", row[0].strip("`/")) for row in page(PAGE).rows("## The study", 1)}
    missing = {name for name in named if not (folder / name).exists()}
    assert missing == {"failed.json"}
    found = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    assert found == {name.partition("/")[0] for name in named} - missing
    listed = re.findall(r"`([\w.]+)`", page(PAGE).section("## Comparing"))
    written = {path.name for path in (folder / "comparison").iterdir()}
    assert written == {name for name in listed if name.startswith(("comparison.", "curves."))}


def test_the_keys_of_the_document(page, study):
    document = json.loads(study[2].stdout)
    text = page(PAGE)
    (section,) = document["sections"]
    keys = [{row[0].strip("`") for row in text.rows("### The JSON document", table)} for table in (0, 1)]
    assert keys[0] == set(section) and all(keys[1] == set(row) for row in section["rows"])
    last = text.section("### The JSON document").split("A difference has")[1]
    assert set(re.findall(r"`(\w+)`", last)) - {"rows", "mcnemar", "bootstrap"} == set(section["differences"][0])
    first = text.section("### The JSON document").split(". A section")[0]
    assert set(re.findall(r"`(\w+)`", first)) == set(document)


def test_the_table_of_a_study_is_what_evaluate_says_of_each_run(study, fgvc):
    document = json.loads(study[2].stdout)
    for row in document["sections"][0]["rows"]:
        for run, top1, f1 in zip(row["runs"], row["top1"]["values"], row["macro_f1"]["values"], strict=True):
            evaluated = json.loads(fgvc("evaluate", run, "--device", "cpu", "--json").stdout)
            assert (evaluated["top1"], evaluated["macro"]["f1"]) == (top1, f1)


def test_the_columns_are_those_of_the_table(page, study, fgvc):
    shown = fgvc("compare", study[0] / "study").stdout
    for name, _ in page(PAGE).rows("## Comparing"):
        assert name.strip("`") in shown, name


def test_the_page_of_a_study_has_its_comparison(study, fgvc):
    folder = study[0] / "study"
    result = fgvc("--cache", study[0] / "cache", "report", folder, "--images", 1, "--device", "cpu", "--json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["comparison"] == json.loads(study[2].stdout) and document["page"] == str(folder / "report.html")
    html = (folder / "report.html").read_text(encoding="utf-8")
    assert re.findall(r"<h2[^>]*><bdi>(.*?)</bdi></h2>", html) == ["Comparison", "The runs", "How to reproduce it"]
    assert html.count('class="folded"') == len(document["runs"]) == 3


def test_commands_of_the_page_can_be_read(page, fgvc):
    from fgvc_cli.cli.lazy import builtin_commands

    for block in page(PAGE).blocks("sh"):
        for line in block.splitlines():
            program, command, *arguments = shlex.split(line)
            options = {word for word in arguments if word.startswith("--")} - {"--data-root"}
            known = {name for p in builtin_commands()[command].loaded().params for name in p.opts}
            assert program == "fgvc" and options <= known
