"""Recipes: named settings that apply by device, weights and component."""

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
"""What conditions are compared with: names of components, "device" and "weights". An optimizer that is built over
another one goes by both their names."""

CONDITIONS = ("backbone", "head", "optimizer", "dataset", "device", "weights")


@dataclass(frozen=True)
class When:
    """Settings that hold where every condition does; a condition's patterns are alternatives, "*" fits anything."""

    conditions: Mapping[str, tuple[str, ...]]
    settings: Layer

    def holds(self, facts: Facts) -> bool:
        """Say whether the block holds."""
        return all(
            any(fnmatch(value, pattern) for value in facts.get(key, ("",)) for pattern in patterns)
            for key, patterns in self.conditions.items()
        )


@dataclass(frozen=True)
class Recipe:
    """A recipe as read: settings for any case, then blocks in their order; `distribution` is its author's."""

    name: str
    settings: Layer
    whens: tuple[When, ...] = field(default=())
    distribution: str = ""

    def names(self) -> dict[str, str]:
        """Return the components that the recipe chooses, by kind."""
        return {kind: table["name"] for kind, table in self.settings.items() if "name" in table}

    def known_as(self, component: Component, registry: Registry) -> str:
        """Return the name that conditions know a component by: not that of one which the recipe's author has."""
        meant = own_name(component.kind, component.name, self.distribution, registry)
        return component.name if meant in (component.name, component.reference) else component.reference

    def layers(self, facts: Facts) -> list[Layer]:
        """Return the settings that hold, weakest first."""
        return [self.settings, *(when.settings for when in self.whens if when.holds(facts))]


def read_recipe(name: str, registry: Registry) -> Recipe:
    """Read the recipe with that name.

    Raises:
        UsageError: there is none.
        FgvcError: its file is no valid recipe.
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
        raise FgvcError(f"recipe {component.reference} is broken: {error}. Its author can mend it.") from error


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
