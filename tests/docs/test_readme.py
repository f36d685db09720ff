"""The README keeps to what the command line has, and to its length."""

from __future__ import annotations

import re
import shlex

import pytest

COMMAND = re.compile(r"(?:^\$ |^|`)(fgvc (?:[a-z][a-z-]+)[^`\n|]*)", re.MULTILINE)
PAGES = [
    "README.md",
    "docs/bench.md",
    "docs/evaluate.md",
    "docs/explain.md",
    "docs/methods.md",
    "docs/performance.md",
    "docs/plugins.md",
    "docs/recipes.md",
    "docs/report-page.md",
    "docs/report.md",
    "docs/results.md",
    "docs/runs.md",
    "docs/studies.md",
]


@pytest.mark.parametrize("name", PAGES)
def test_every_command_and_option_shown_exists(name, page, fgvc):
    text = page(name).text.replace("\\\n", " ")
    commands = [shlex.split(found.split(" #")[0], comments=True) for found in COMMAND.findall(text)]
    assert commands
    for _, subcommand, *arguments in commands:
        result = fgvc(subcommand, "--help")
        if result.exit_code:
            assert name == "docs/plugins.md", f"fgvc {subcommand}"  # a command that a plugin on that page adds
            continue
        known = set(re.findall(r"--[a-z-]+", result.output + fgvc("--help").output))
        for argument in arguments:
            option = argument.partition("=")[0]
            assert not option.startswith("--") or option in known, f"fgvc {subcommand} {option}"


def test_its_updates_are_those_of_the_page_on_performance(page):
    """Milliseconds and how they stand beside the arithmetic, by backbone and head."""
    rows = page("docs/performance.md").rows("## Updates and their MAC bound")
    there = {
        (f"{backbone}, {px} px, batches of {batch}", head): f"{float(ms):,.0f} ({float(over):.2g})"
        for backbone, px, batch, head, ms, _, _, over in rows
    }
    table = page("README.md").rows("## Results", 1)
    assert {name for name, *_ in table} <= {name for name, _ in there}
    for name, *figures in table:
        assert figures == [there[name, head] for head in ("linear", "pim", "cmal")]


def test_the_readme_is_short(page):
    assert len(page("README.md").text.splitlines()) < 150
