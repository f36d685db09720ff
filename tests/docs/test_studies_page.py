"""docs/studies.md: its numbers, names, example studies and commands."""

from __future__ import annotations

import json
import re
from pathlib import Path

from fgvc_cli.experiments.comparison import GROUPS, SORTS
from fgvc_cli.experiments.statistics import RESAMPLES
from fgvc_cli.registry import get_registry
from fgvc_cli.scoring.scores import LEVEL

ROOT = Path(__file__).parents[2]
PAGE = "docs/studies.md"


def test_orders_groups_and_levels(page):
    from fgvc_cli.cli.lazy import builtin_commands

    metavars = {p.name: p.metavar for p in builtin_commands()["compare"].loaded().params}
    assert (metavars["sort"], metavars["group"]) == ("|".join(SORTS), "|".join(GROUPS))
    assert f"{RESAMPLES:,} resamples" in page(PAGE).text and f"below {LEVEL:g} a difference" in page(PAGE).text


def test_registered_studies_are_named(page):
    named = set(re.findall(r"`(report-\w+)`", page(PAGE).section("## Study files")))
    assert named == {component.name for component in get_registry().components("study") if component.builtin}


def test_the_example_has_ten_runs(page, fgvc, tmp_path):
    (tmp_path / "widths.toml").write_text(page(PAGE).files()["widths.toml"])
    runs = json.loads(fgvc("sweep", "--config", tmp_path / "widths.toml", "--dry-run", "--json").stdout)
    assert len(runs) == 10 and "lists its ten runs" in page(PAGE).text
    assert sum(run["run"].startswith("long-seed") for run in runs) == 2


def test_the_grocery_study_is_valid(fgvc):
    """Three heads with two optimizers each; listing them needs no images."""
    runs = json.loads(fgvc("sweep", "--config", ROOT / "docs/examples/grocery20.toml", "--dry-run", "--json").stdout)
    assert len(runs) == len({(run["head"], run["optimizer"]) for run in runs}) == 6
