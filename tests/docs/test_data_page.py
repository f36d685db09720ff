"""docs/data.md: every dataset is named, its figures are the code's, its commands exist and its examples work."""

from __future__ import annotations

import re
import shlex
import sys
import types
from typing import Any

import pytest
import typer

from fgvc_cli import settings
from fgvc_cli.cli.data import data
from fgvc_cli.cli.lazy import builtin_commands
from fgvc_cli.contracts import DatasetRequest
from fgvc_cli.data.acquisition import check
from fgvc_cli.data.acquisition import download as transfer
from fgvc_cli.data.acquisition.download import PART
from fgvc_cli.data.acquisition.prepare import UNPACKING
from fgvc_cli.options import NoOptions, describe
from fgvc_cli.registry import get_registry
from fgvc_cli.registry.records import BUILTIN_DISTRIBUTION

PAGE = "docs/data.md"
ON_THE_SPOT = {"demo", "folder", "table"}


def built_in() -> dict[str, Any]:
    return {c.name: c for c in get_registry().components("dataset") if c.distribution == BUILTIN_DISTRIBUTION}


def table_of_sets(page) -> list[list[str]]:
    return page(PAGE).rows("## Datasets")


def test_every_built_in_data_set_is_named(page):
    named = [row[0].strip("`") for row in table_of_sets(page) if row[0]]
    assert sorted(named) == sorted(set(built_in()) - ON_THE_SPOT)
    assert all(f"`{name}`" in page(PAGE).section("## Datasets") for name in ON_THE_SPOT)


def test_what_is_said_of_getting_each_one_is_what_prepare_does(page, tmp_path):
    with settings.in_force(settings.current().changed("--data-root", data_root_given=tmp_path)):
        for row in table_of_sets(page):
            if not row[0]:
                continue
            component = built_in()[row[0].strip("`")]
            request = DatasetRequest(None, tmp_path, tmp_path, 0)
            provision = component.load().provision(request, component.options_type()())
            by_hand = row[4].startswith("by hand")
            assert by_hand == (not provision.downloads), row[0]
            assert by_hand or f"fgvc data prepare {component.name}" in row[4]


def test_the_images_of_each_split_are_those_that_the_code_expects(page):
    from fgvc_datasets import grocery_store

    told = {row[0].strip("`"): row[2] for row in table_of_sets(page)}
    classes = {name: component.load() for name, component in built_in().items() if name in told}
    published = {name: made.published for name, made in classes.items() if hasattr(made, "published")}
    assert len(published) == 7
    for name, counts in {**published, "grocery_store": grocery_store.PUBLISHED}.items():
        ours = {split.removesuffix("val") or split: count for split, count in counts.items()}  # "trainval" is "train"
        assert told[name] == ", ".join(f"{split} {count:,}" for split, count in ours.items())


def test_the_images_of_each_version_of_inaturalist_are_those_that_the_code_expects(page):
    from fgvc_datasets.inat import VERSIONS

    told = [row[2] for row in table_of_sets(page) if "inat" in row[0] or not row[0]]
    train, test = ({name: f"{v.published[s]:,}" for name, v in VERSIONS.items()} for s in ("train", "validation"))
    assert test["2021"] == test["2021_mini"]
    assert told == [
        f"train {train['2021']} (mini: {train['2021_mini']}), test {test['2021']}",
        "; ".join(f"{year}: train {train[year]}, test {test[year]}" for year in ("2019", "2018", "2017")),
    ]


def commands_in(page) -> list[list[str]]:
    lines = [line for block in page(PAGE).blocks("sh") for line in block.replace("\\\n", "").splitlines()]
    quoted = re.findall(r"`(fgvc [^`]+)`", page(PAGE).prose)
    return [shlex.split(command) for command in [*lines, *quoted] if command.startswith("fgvc ")]


def test_every_command_of_the_page_exists_with_its_options(page):
    found = commands_in(page)
    assert {"info", "prepare", "check", "cache"} <= {words[2] for words in found if words[1] == "data" and words[2:]}
    for words in found:
        name, arguments = words[1], [word for word in words[2:] if word != "..."]
        command: Any = builtin_commands()[name].loaded()
        if name == "data" and arguments:
            name, *arguments = arguments
            command = typer.main.get_command(data).commands[name]  # type: ignore[attr-defined]
        known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        known |= {"--data-root", "--cache", "--cache-limit", "--quiet"}
        assert {word.partition("=")[0] for word in arguments if word.startswith("--")} <= known, words


def test_every_option_of_a_data_set_that_is_named_exists(page):
    known = {info.name for component in built_in().values() for info in describe(component.options_type())}
    named = set(re.findall(r"dataset\.(\w+)=", page(PAGE).text))
    assert named and named <= known


def test_the_figures_are_those_of_the_code(page):
    text = page(PAGE).section("## Checking")
    assert f"under {check.SMALL_SIDE} px, or more than {check.MAX_ASPECT_RATIO:g} times as long as wide" in text
    assert f"under {check.FEW_IMAGES} in `train`" in text
    getting = page(PAGE).section("## Getting a dataset")
    assert f"after {transfer.ATTEMPTS} attempts in a row" in getting
    assert f"`NAME{PART}`" in getting and f"`{UNPACKING}`" in getting


def test_the_exit_codes(page, fgvc, photos, tmp_path):
    assert [row[0] for row in page(PAGE).rows("## Checking")] == ["0", "1", "2", "3", "130"]
    assert fgvc("data", "check", "--data", photos).exit_code == 0
    assert fgvc("data", "check", "cub200", "--data-root", tmp_path).exit_code == 1
    assert fgvc("data", "check", "cub100").exit_code == 2
    spoilt = tmp_path / "photos" / "a"
    spoilt.mkdir(parents=True)
    (spoilt / "1.jpg").touch()
    assert fgvc("data", "check", "--data", spoilt.parent).exit_code == 3


@pytest.fixture
def birds(page, tmp_path) -> Any:
    """The class of the example, and the folder that it is to be in."""
    module = types.ModuleType("birds_of_the_page")
    sys.modules[module.__name__] = module
    exec(page(PAGE).files()["birds/dataset.py"], module.__dict__)
    yield module.Birds
    del sys.modules[module.__name__]


def test_the_example_of_a_data_set(birds, tmp_path):
    from fgvc_cli.errors import FgvcError

    request = DatasetRequest(None, tmp_path, tmp_path, 0)
    with pytest.raises(FgvcError, match=r"birds not found: .* lacks images\. Next: fgvc data prepare birds"):
        birds(request=request, options=NoOptions())
    for name in ("robin/1.jpg", "wren/2.jpg"):
        (tmp_path / "birds/images" / name).parent.mkdir(parents=True)
        (tmp_path / "birds/images" / name).touch()
    opened = birds(request=request, options=NoOptions())
    assert list(opened.split("train").labels) == [0, 1]
    (download,) = birds.provision(request, NoOptions()).downloads
    assert download.gives == ("images",) and download.size == 81_234_567
