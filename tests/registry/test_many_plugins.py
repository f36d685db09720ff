"""Fifty installed plugins: `fgvc list-plugins` shows them all and takes at most twice its time."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fgvc_cli.cli.app import build_app

PLUGINS, ROUNDS, ALLOWED = 50, 7, 2.0

MODULE = """
from dataclasses import dataclass

from fgvc_cli import HeadSpec, hookimpl, option


@dataclass(frozen=True)
class Options:
    width: int = option(8, "how wide", minimum=1)


@hookimpl
def fgvc_heads():
    return [HeadSpec("head-{0}", "fgvc_many_{0}.head:Head", "One of many", "fgvc_many_{0}:Options", "A paper of 2026")]
"""


def list_plugins(path: str) -> tuple[float, str]:
    """Return the seconds that the command takes in a process of its own, and what it prints."""
    environment = {**os.environ, "PYTHONPATH": path}
    command = [sys.executable, "-m", "fgvc_cli", "list-plugins"]
    started = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return time.perf_counter() - started, done.stdout


def test_fifty_plugins_are_all_loaded_and_listed(install):
    for i in range(PLUGINS):
        install(f"fgvc-many-{i}", {f"fgvc_many_{i}.py": MODULE.format(i)})
    result = CliRunner().invoke(build_app(), ["list-plugins", "--json"])
    document = json.loads(result.stdout)
    ours = [plugin for plugin in document["plugins"] if not plugin["builtin"]]
    assert [(p["status"], len(p["components"]), p["heavy_modules"]) for p in ours] == [("loaded", 1, [])] * PLUGINS
    names = {component["name"] for component in document["kinds"]["head"]["components"]}
    assert names > {f"head-{i}" for i in range(PLUGINS)}


@pytest.mark.slow
def test_fifty_plugins_take_at_most_twice_the_time_of_none(make_wheel, pip_install, tmp_path):
    wheels = [
        make_wheel(tmp_path, f"fgvc-many-{i}", {f"fgvc_many_{i}/__init__.py": MODULE.format(i)}) for i in range(PLUGINS)
    ]
    site = tmp_path / "site"
    pip_install(site, wheels)
    nothing = tmp_path / "nothing"
    Path(nothing).mkdir()
    _, text = list_plugins(str(site))  # which also leaves bytecode, as it would be after the first command of many
    for i in range(PLUGINS):
        assert f"head-{i} " in text and f"fgvc-many-{i}==1.0 " in text
    seconds: dict[str, list[float]] = {str(nothing): [], str(site): []}
    for _ in range(ROUNDS):  # in turn, so that another load on the machine falls on both
        for path, times in seconds.items():
            times.append(list_plugins(path)[0])
    none, many = (statistics.median(times) for times in seconds.values())
    assert many <= ALLOWED * none, f"{many:.3f} s with {PLUGINS} plugins, {none:.3f} s with none"
