"""Recipes: named settings, some of them conditional on device, weights and components."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from typing import Any

from fgvc_cli.config.layering import Layer, own_name
from fgvc_cli.errors import FgvcError
from fgvc_cli.registry import Component, Registry
from fgvc_cli.specs import KINDS

Facts = Mapping[str, tuple[str, ...]]
"""Values that conditions are matched against: names of components by kind, "device" and "weights". An optimizer that
wraps another one has both names."""

CONDITIONS = ("backbone", "head", "optimizer", "dataset", "device", "weights")


@dataclass(frozen=True)
class When:
    """Settings that apply if every condition holds; patterns of a condition are alternatives, "*" matches anything."""

    conditions: Mapping[str, tuple[str, ...]]
    settings: Layer

    def holds(self, facts: Facts) -> bool:
        """Return whether every condition holds."""
        return all(
            any(fnmatch(value, pattern) for value in facts.get(key, ("",)) for pattern in patterns)
            for key, patterns in self.conditions.items()
        )


@dataclass(frozen=True)
class Recipe:
    """A recipe.

    Attributes:
        name: of the recipe.
        settings: those that always apply.
        whens: conditional settings, in their order.
        distribution: that registers the recipe.
    """

    name: str
    settings: Layer
    whens: tuple[When, ...] = field(default=())
    distribution: str = ""

    def names(self) -> dict[str, str]:
        """Return the components that the recipe chooses, by kind."""
        return {kind: table["name"] for kind, table in self.settings.items() if "name" in table}

    def known_as(self, component: Component, registry: Registry) -> str:
        """Return the name of a component in conditions; a foreign one with the name of an own one has its reference."""
        meant = own_name(component.kind, component.name, self.distribution, registry)
        return component.name if meant in (component.name, component.reference) else component.reference

    def layers(self, facts: Facts) -> list[Layer]:
        """Return the settings that apply, weakest first."""
        return [self.settings, *(when.settings for when in self.whens if when.holds(facts))]


def read_recipe(name: str, registry: Registry) -> Recipe:
    """Read the recipe of that name.

    Raises:
        UsageError: there is no such recipe.
        FgvcError: its file is not a valid recipe.
    """
    component = registry.find("recipe", name)
    try:
        document = tomllib.loads(component.load())
        document.pop("summary", None)
        whens = tuple(_when(block) for block in document.pop("when", []))
        settings = _tables(document)
        for kind in KINDS:
            if "name" in settings.get(kind, {}):
                settings[kind]["name"] = own_name(kind, settings[kind]["name"], component.distribution, registry)
        return Recipe(component.spec.name, settings, whens, component.distribution)
    except (tomllib.TOMLDecodeError, ValueError) as error:
        raise FgvcError(f"recipe {component.reference} is invalid: {error}") from error


def _when(block: dict[str, Any]) -> When:
    settings = _tables(block.pop("set", {}))
    unknown = set(block) - set(CONDITIONS)
    if unknown or not block:
        raise ValueError(f"[[when]] knows the conditions {', '.join(CONDITIONS)}, not {', '.join(unknown) or 'none'}")
    return When({k: tuple(v) if isinstance(v, list) else (v,) for k, v in block.items()}, settings)


def _tables(document: dict[str, Any]) -> Layer:
    for name, table in document.items():
        if not isinstance(table, dict):
            raise ValueError(f"'{name}' must be a table of settings")
    return document
