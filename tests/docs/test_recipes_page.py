"""docs/recipes.md: its tables are those of code and recipes, its examples resolve, its order is the order."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from typing import Any

import pytest
import typer

from fgvc_cli.cli.show import value_text
from fgvc_cli.cli.train import train as train_command
from fgvc_cli.config.recipes import CONDITIONS
from fgvc_cli.config.run_config import SECTIONS, read_config, resolve, user_settings
from fgvc_cli.config.train_options import AugmentOptions, TrainOptions
from fgvc_cli.errors import UsageError
from fgvc_cli.options import describe
from fgvc_cli.registry import get_registry
from fgvc_cli.registry.records import BUILTIN_DISTRIBUTION, Component

PAGE = "docs/recipes.md"
FACTS = {"device": "cuda", "weights": "pretrained"}


@pytest.fixture(scope="module")
def recipes() -> dict[str, dict[str, Any]]:
    """The built-in recipes as TOML, in the order in which their plugin registers them."""
    found = [c for c in get_registry().components("recipe") if c.distribution == BUILTIN_DISTRIBUTION]
    return {c.name: tomllib.loads(c.load()) for c in found}


def shown(value: Any) -> str:
    """Write a value as the page does."""
    return f"[{', '.join(map(shown, value))}]" if isinstance(value, list) else value_text(value)


def as_lines(rows: list[list[str]]) -> list[str]:
    return [" | ".join(row) for row in rows]


@pytest.mark.parametrize(
    ("heading", "options"),
    [("## Settings of the training", TrainOptions), ("## Settings of the augmentation", AugmentOptions)],
)
def test_every_setting_is_in_its_table_with_type_default_and_help(page, heading, options):
    expected = [[f"`{i.name}`", i.type, f"`{value_text(i.default)}`", i.help] for i in describe(options)]
    assert as_lines(page(PAGE).rows(heading)) == as_lines(expected)


def test_the_table_of_recipes_is_what_they_set(page, recipes):
    heading = next(line for line in page(PAGE).text.splitlines() if line.startswith("| setting") and "report" in line)
    names = [cell.strip() for cell in heading.split("|")[2:-1]]
    assert sorted(names) == sorted(recipes)
    unconditional = {name: {k: t for k, t in recipes[name].items() if k in SECTIONS} for name in names}
    expected = {
        f"`{section}.{key}`": [shown(unconditional[n][section][key]) if key in unconditional[n].get(section, {}) else ""
                               for n in names]
        for section in SECTIONS for name in names for key in unconditional[name].get(section, {})
    }  # fmt: skip
    rows = page(PAGE).rows("## The built-in recipes", table=0)
    assert as_lines(rows) == as_lines([[setting, *cells] for setting, cells in expected.items()])


def test_the_table_of_conditions_is_what_they_have(page, recipes):
    rows = page(PAGE).rows("## The built-in recipes", table=1)
    expected = [[name, *_block(block)] for name in _in_order(rows, recipes) for block in recipes[name].get("when", [])]
    assert as_lines(rows) == as_lines(expected)


def _in_order(rows: list[list[str]], recipes: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys([*(row[0] for row in rows), *recipes]))


def _block(block: dict[str, Any]) -> tuple[str, str]:
    conditions = {k: v if isinstance(v, list) else [v] for k, v in block.items() if k != "set"}
    settings = [f"`{section}.{key}={shown(v)}`" for section, t in block["set"].items() for key, v in t.items()]
    return "; ".join(f"{key}: {', '.join(values)}" for key, values in conditions.items()), ", ".join(settings)


def test_every_recipe_resolves_on_every_device(recipes):
    for name in recipes:
        for device in ("cpu", "cuda"):
            for head in ("linear", "pim"):
                facts = {"device": device, "weights": "none"}
                assert resolve([{"head": {"name": head}}], name, facts, get_registry()).recipe == name


class OneMore:
    """The registry with one more recipe."""

    def __init__(self, name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.registry, self.name = get_registry(), name
        self.recipe = self.registry.find("recipe", "scratch")
        real = Component.load
        monkeypatch.setattr(Component, "load", lambda c: text if c is self.recipe else real(c))

    def find(self, kind: Any, name: str) -> Component:
        return self.recipe if (kind, name) == ("recipe", self.name) else self.registry.find(kind, name)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.registry, name)


def test_the_recipe_of_the_page_holds_where_it_says(page, monkeypatch):
    registry = OneMore("patient", page(PAGE).files()["patient.toml"], monkeypatch)

    def resolved(backbone: str, device: str, weights: str) -> Any:
        layer = {"backbone": {"name": backbone}}
        return resolve([layer], "patient", {"device": device, "weights": weights}, registry)  # type: ignore[arg-type]

    plain = resolved("swin_t", "cuda", "none")
    assert (plain.train.epochs, plain.train.image_size, plain.optimizer.options.lr) == (200, 224, 0.01)
    assert plain.augment.policy == "none"
    on_cpu = resolved("swin_t", "cpu", "none")
    assert (on_cpu.train.epochs, on_cpu.train.image_size, on_cpu.train.warmup_epochs) == (20, 96, 5)
    for backbone in ("vit_b16", "timm/vit_tiny_patch16_224"):
        assert resolved(backbone, "cuda", "none").optimizer.options.lr == 0.003
        assert resolved(backbone, "cuda", "none").augment.policy == "randaugment"
        assert resolved(backbone, "cuda", "pretrained").optimizer.options.lr == 0.01


def test_the_conditions_are_all_named(page):
    section = page(PAGE).section("## Writing a recipe")
    assert set(CONDITIONS) <= set(re.findall(r"`(\w+)`", section))


def test_the_file_of_the_page_and_its_place_in_the_order(page, tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(page(PAGE).files()["mine.toml"])
    read, recipe = read_config(file)
    assert recipe == "finetune" and read["train"] == {"epochs": 12}

    def epochs(options: dict[str, Any], texts: list[str], config: Any = file) -> int:
        settings, named = user_settings(config, options, texts)
        return resolve(settings, named or "finetune", {**FACTS, "device": "cpu"}, get_registry()).train.epochs

    of_the_recipe = resolve([], "finetune", FACTS, get_registry()).train.epochs
    of_its_block = epochs({}, [], None)
    given = {"train": {"epochs": 13}}
    assert of_the_recipe != of_its_block
    assert epochs({}, []) == 12
    assert epochs(given, []) == 13
    assert epochs(given, ["train.epochs=14"]) == 14
    assert epochs(given, ["train.epochs=14", "train.epochs=15"]) == 15

    settings, _ = user_settings(file, {}, [])
    config = resolve(settings, "finetune", FACTS, get_registry())
    assert (config.head.name, config.head.options.fpn_size, config.dataset.name) == ("pim", 256, "folder")
    assert config.data is not None and config.data.name == "photos"


def test_options_of_a_component_that_is_replaced_are_dropped(page):
    settings, _ = user_settings(None, {"optimizer": {"name": "adamw"}}, [])
    options = resolve(settings, "report", FACTS, get_registry()).optimizer.options
    assert options == type(options)()
    with pytest.raises(UsageError, match=r"optimizer\.momentum: no such option"):
        resolve([*settings, {"optimizer": {"momentum": 0.5}}], "report", FACTS, get_registry())


def test_the_options_of_fgvc_train_are_settings(page):
    app = typer.Typer(add_completion=False)
    app.command()(train_command)
    options = {name for parameter in typer.main.get_command(app).params for name in parameter.opts}
    named = re.findall(r"`--([\w-]+)`", page(PAGE).section("## Order").rpartition("Of the options")[2])
    assert {f"--{name}" for name in named} <= options
    fields = {info.name for info in describe(TrainOptions)}
    assert {name.replace("-", "_") for name in named} - {"lr", "head_lr"} == {
        option.removeprefix("--").replace("-", "_") for option in options
    } & fields


def test_a_block_with_a_condition_that_does_not_exist_is_refused(monkeypatch):
    registry = OneMore("odd", '[[when]]\nmoon = "full"\nset.train = { epochs = 1 }\n', monkeypatch)
    with pytest.raises(Exception, match="knows the conditions backbone, head, optimizer, dataset, device, weights"):
        resolve([], "odd", FACTS, registry)  # type: ignore[arg-type]


def test_what_the_page_says_of_the_sources_holds(page, recipes):
    import timm

    text = page(PAGE).text
    for name in re.findall(r"timm/(swin_\w+)", text):
        assert timm.is_model(name)
    published = recipes["pim-paper"]
    on = {"head": {"name": "pim"}, "backbone": {"name": "timm/swin_large_patch4_window12_384"}}
    for changes, maps in (
        ({}, "published"),
        ({"head": {"name": "linear"}}, "stages"),
        ({"backbone": {"name": "resnet50"}}, "stages"),
    ):
        config = resolve([{**on, **changes}], "pim-paper", {"device": "cuda"}, get_registry())
        assert config.backbone.options.maps == maps
    assert published["train"]["warmup_steps"] * published["train"]["grad_accum_steps"] == 800
    assert get_registry().find("head", "pim").options_type()().lambda_b == 0.5
