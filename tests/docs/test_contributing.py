"""CONTRIBUTING.md draws the house as it is; the pages' links resolve; the documentation builds."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PAGES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "findings/README.md"]
PAGES += [f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))]


def test_the_drawing_is_the_order_of_the_layers(page):
    (drawing,) = [block for block in page("CONTRIBUTING.md").blocks("") if "contracts" in block]
    layers = [re.findall(r"\w+", layer) for layer in PROJECT["tool"]["importlinter"]["contracts"][0]["layers"]]
    order = {name: level for level, names in enumerate(layers) for name in names}
    packages = {path.parent.name for path in (ROOT / "fgvc_cli").glob("*/__init__.py")}
    drawn = [name for name in re.findall(r"\w+", drawing) if name in packages]
    assert len(drawing.splitlines()) == 11
    assert set(drawn) == packages
    levels = [order[name] for name in dict.fromkeys(drawn)]
    assert levels == sorted(levels)


def test_ci_runs_the_checks_of_the_page_and_the_tests_of_the_readme(page):
    _, check = page("CONTRIBUTING.md").blocks("sh")
    commands = [command.strip() for line in check.splitlines() for command in line.split("&&")]
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    assert [command for command in commands if command not in lines] == []
    assert commands[-1].replace("python -m pytest -q", "pytest") in page("README.md").text


@pytest.mark.parametrize("name", PAGES)
def test_links_resolve(page, name):
    found = page(name)
    targets = [target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", found.prose)]
    local = [target for target in targets if target and not re.match(r"\w+:", target)]
    assert [target for target in local if not (found.path.parent / target).exists()] == []


@pytest.mark.slow
def test_the_documentation_builds(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    reference = (tmp_path / "reference" / "index.html").read_text(encoding="utf-8")
    for name in ("train", "load", "evaluate", "explain", "components", "Run", "FgvcError"):
        assert f'id="fgvc_cli.{name}"' in reference, name
