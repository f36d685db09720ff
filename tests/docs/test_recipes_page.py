"""docs/recipes.md: its example files resolve as it says, and settings override each other in its order."""

from __future__ import annotations

import re
from typing import Any

import pytest
import timm

from fgvc_cli.config.layering import CONDITIONS
from fgvc_cli.config.run_config import read_config, resolve
from fgvc_cli.registry import get_registry
from fgvc_cli.registry.records import Component

PAGE = "docs/recipes.md"
FACTS = {"device": "cuda", "weights": "pretrained"}


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
    assert set(CONDITIONS) <= set(re.findall(r"`(\w+)`", page(PAGE).section("## Writing a recipe")))


def test_the_files_of_the_page_resolve(page, tmp_path):
    for name in ("mine.toml", "flat.toml"):
        (tmp_path / name).write_text(page(PAGE).files()[name])
    settings, recipe = read_config(tmp_path / "mine.toml")
    config = resolve([settings], recipe or "", FACTS, get_registry())
    assert (config.recipe, config.train.epochs, config.head.options.fpn_size) == ("finetune", 12, 256)
    assert config.dataset.name == "folder" and config.data is not None and config.data.name == "photos"
    settings, _ = read_config(tmp_path / "flat.toml")
    assert resolve([settings], "finetune", FACTS, get_registry()).optimizer.title == "sam over adamw"


def test_a_block_with_a_condition_that_does_not_exist_is_refused(monkeypatch):
    registry = OneMore("odd", '[[when]]\nmoon = "full"\nset.train = { epochs = 1 }\n', monkeypatch)
    with pytest.raises(Exception, match="knows the conditions backbone, head, optimizer, dataset, device, weights"):
        resolve([], "odd", FACTS, registry)  # type: ignore[arg-type]


def test_the_published_recipe_of_pim_is_for_pim_alone(page):
    assert timm.is_model(re.findall(r"timm/(swin_\w+)", page(PAGE).text)[0])
    on = {"head": {"name": "pim"}, "backbone": {"name": "timm/swin_large_patch4_window12_384"}}
    for changes, maps in (
        ({}, "published"),
        ({"head": {"name": "linear"}}, "stages"),
        ({"backbone": {"name": "resnet50"}}, "stages"),
    ):
        config = resolve([{**on, **changes}], "pim-paper", {"device": "cuda"}, get_registry())
        assert config.backbone.options.maps == maps
