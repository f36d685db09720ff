"""docs/data.md: datasets and their published counts, commands, options and the example."""

from __future__ import annotations

import re
import shlex
import sys
import types
from typing import Any

import pytest
import typer

from fgvc_cli.cli.data import data
from fgvc_cli.cli.lazy import builtin_commands
from fgvc_cli.contracts import DatasetRequest
from fgvc_cli.errors import FgvcError
from fgvc_cli.options import NoOptions, describe
from fgvc_cli.registry import get_registry
from fgvc_cli.registry.records import BUILTIN_DISTRIBUTION

PAGE = "docs/data.md"


def built_in() -> dict[str, Any]:
    return {c.name: c for c in get_registry().components("dataset") if c.distribution == BUILTIN_DISTRIBUTION}


def test_every_built_in_dataset_is_listed_with_its_published_counts(page):
    rows = {row[0].strip("`"): row for row in page(PAGE).rows("## Datasets") if row[0]}
    assert sorted([*rows, "demo", "folder", "table"]) == sorted(built_in())
    for name, row in rows.items():
        for split, count in getattr(built_in()[name].load(), "published", {}).items():
            assert f"{split.removesuffix('val') or split} {count:,}" in row[2], name  # the official "trainval" is train


def test_every_command_and_option_of_the_page_exists(page):
    lines = [line for block in page(PAGE).blocks("sh") for line in block.splitlines()]
    quoted = [" ".join(text.split()) for text in re.findall(r"`(fgvc [^`]+)`", page(PAGE).prose)]
    for line in [*lines, *quoted]:
        _, name, *arguments = shlex.split(line)
        command: Any = builtin_commands()[name].loaded()
        if name == "data" and arguments:
            command = typer.main.get_command(data).commands[arguments[0]]  # type: ignore[attr-defined]
        known = {option for parameter in command.params for option in parameter.opts} | {"--data-root"}
        assert {word for word in arguments if word.startswith("--")} <= known, line
    known = {info.name for component in built_in().values() for info in describe(component.options_type())}
    assert set(re.findall(r"dataset\.(\w+)=", page(PAGE).text)) <= known


def test_the_exit_codes(page, fgvc, photos, tmp_path):
    assert [row[0] for row in page(PAGE).rows("## Checking")] == ["0", "1", "2", "3", "130"]
    assert fgvc("data", "check", "--data", photos, "--workers", 0).exit_code == 0
    assert fgvc("data", "check", "cub200", "--data-root", tmp_path).exit_code == 1
    assert fgvc("data", "check", "cub100").exit_code == 2
    (tmp_path / "photos" / "a").mkdir(parents=True)
    (tmp_path / "photos" / "a" / "1.jpg").touch()
    assert fgvc("data", "check", "--data", tmp_path / "photos", "--workers", 0).exit_code == 3


def test_the_example_of_a_dataset(page, tmp_path, monkeypatch):
    module = types.ModuleType("birds_of_the_page")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(page(PAGE).files()["birds/dataset.py"], module.__dict__)
    birds: Any = module.Birds
    request = DatasetRequest(None, tmp_path, tmp_path, 0)
    with pytest.raises(FgvcError, match="images"):
        birds(request=request, options=NoOptions())
    for name in ("robin/1.jpg", "wren/2.jpg"):
        (tmp_path / "birds/images" / name).parent.mkdir(parents=True)
        (tmp_path / "birds/images" / name).touch()
    assert list(birds(request=request, options=NoOptions()).split("train").labels) == [0, 1]
    (download,) = birds.provision(request, NoOptions()).downloads
    assert download.gives == ("images",) and download.size == 81_234_567
