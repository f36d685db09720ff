"""The README and the pages show commands and options that exist, and the README keeps to its length."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

import fgvc_cli
from fgvc_cli.cli.app import build_app
from fgvc_cli.cli.lazy import builtin_commands

COMMAND = re.compile(r"(?:^\$ |^|`)(fgvc (?:[a-z][a-z-]+)[^`\n|]*)", re.MULTILINE)
ROOT = Path(__file__).parents[2]
PAGES = ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]


def options_of(command: Any) -> set[str]:
    return {option for parameter in command.params for option in parameter.opts if option.startswith("--")}


@pytest.fixture(scope="module")
def known(fgvc) -> dict[str, set[str]]:
    """The options of each command, global ones included."""
    commands = {name: command.loaded() for name, command in builtin_commands().items()}
    for group, command in list(commands.items()):
        commands |= {f"{group} {name}": each for name, each in getattr(command, "commands", {}).items()}
    of_all = set(re.findall(r"--[a-z-]+", fgvc("--help").output)) | options_of(typer.main.get_command(build_app()))
    return {name: options_of(command) | of_all for name, command in commands.items()}


@pytest.mark.parametrize("name", PAGES)
def test_every_command_and_option_shown_exists(name, page, known):
    text = page(name).text.replace("\\\n", " ")
    commands = [shlex.split(found.split(" #")[0], comments=True) for found in COMMAND.findall(text)]
    for _, subcommand, *arguments in commands:
        if arguments and f"{subcommand} {arguments[0]}" in known:
            subcommand = f"{subcommand} {arguments.pop(0)}"
        if subcommand not in known:
            assert name == "docs/plugins.md", f"fgvc {subcommand}"  # a command that a plugin on that page adds
            continue
        for argument in arguments:
            option = argument.partition("=")[0]
            assert not option.startswith("--") or option in known[subcommand], f"fgvc {subcommand} {option}"
    assert commands or name not in ("README.md", "docs/data.md", "docs/studies.md", "docs/runs.md")


def test_its_updates_are_those_of_the_page_on_performance(page):
    """Milliseconds and time vs. MAC bound, by backbone and head."""
    rows = page("docs/performance.md").rows("## Updates and their MAC bound")
    there = {
        (f"{backbone}, {px} px, batch size {batch}", head): f"{float(ms):,.0f} ({float(over):.2g})"
        for backbone, px, batch, head, ms, _, _, over in rows
    }
    for name, *figures in page("README.md").rows("## Results", 1):
        assert figures == [there[name, head] for head in ("linear", "pim", "cmal")]


def test_the_readme_is_short(page):
    assert len(page("README.md").text.splitlines()) < 150


def test_every_page_is_reached(page):
    for name in PAGES[1:]:
        for index in ("README.md", "docs/index.md", "mkdocs.yml"):
            if not (name == "docs/index.md" and index != "mkdocs.yml"):
                link = name.removeprefix("" if index == "README.md" else "docs/")
                assert re.search(rf"[( ]{re.escape(link)}(\)|\n|$)", page(index).text), f"{index} lacks {link}"


def test_every_public_name_is_on_the_reference_page(page):
    text = page("docs/reference.md").text  # specs and families are generated
    names = [name for name in fgvc_cli.__all__ if not name.endswith(("Spec", "Family"))]
    assert [name for name in names if f"::: fgvc_cli.{name}\n" not in text and f"`{name}`" not in text] == []
