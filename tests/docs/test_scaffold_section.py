"""What docs/plugins.md says of `fgvc new-plugin` is what that command does."""

from __future__ import annotations

import re
import shlex

from fgvc_cli.testing.scaffolding.names import SCAFFOLDED

PAGE, HEADING = "docs/plugins.md", "## Start from a scaffold"


def test_the_command_prints_what_the_page_shows(page, fgvc, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (shown,) = re.findall(r"```console\n\$ fgvc (.*?)\n(.*?)```", page(PAGE).section(HEADING), re.DOTALL)
    result = fgvc(*shlex.split(shown[0]))
    assert (result.exit_code, result.stdout) == (0, shown[1])


def test_the_kinds_are_those_that_there_is_a_scaffold_for(page):
    (kinds,) = re.findall(r"--kind ([\w|]+)`", page(PAGE).section(HEADING))
    assert kinds.split("|") == list(SCAFFOLDED)
