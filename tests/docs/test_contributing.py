"""CONTRIBUTING.md is true, and every page's links lead somewhere."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    *(f"docs/{p.name}" for p in sorted((ROOT / "docs").glob("*.md"))),
)


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(page, name):
    found = page(name)
    targets = [target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", found.prose)]
    local = [target for target in targets if target and not re.match(r"\w+:", target)]
    assert [target for target in local if not (found.path.parent / target).exists()] == []


def test_the_check_runs_what_the_page_says(page):
    _, check = page("CONTRIBUTING.md").blocks("sh")
    commands = [command.strip() for line in check.splitlines() for command in line.split("&&")]
    assert len(commands) == 4
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    assert [command for command in commands if command not in lines] == []


def test_the_set_up_installs_what_there_is(page):
    (command,) = re.findall(r'pip install -e "\.\[(\w+)\]"', page("CONTRIBUTING.md").text)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert command in project["project"]["optional-dependencies"]
    markers = [text.partition(":")[0] for text in project["tool"]["pytest"]["ini_options"]["markers"]]
    assert [marker for marker in markers if f"`{marker}`" not in page("CONTRIBUTING.md").text] == []


def test_the_places_it_names_are_there(page):
    text = page("CONTRIBUTING.md").text
    places = {name.rstrip("/") for name in re.findall(r"`((?:fgvc_cli|plugins|tests|docs|benchmarks)/[\w./]*)`", text)}
    assert len(places) > 8
    assert {place for place in places if not (ROOT / place).exists()} == set()
