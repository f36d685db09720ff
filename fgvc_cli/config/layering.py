"""Recipes and layers of settings, merged by precedence."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from typing import Any

from fgvc_cli.errors import FgvcError, UsageError, did_you_mean
from fgvc_cli.options import option_names
from fgvc_cli.registry import Component, Registry
from fgvc_cli.registry.lookup import split_reference
from fgvc_cli.registry.records import BUILTIN_DISTRIBUTION, Origin, normalized
from fgvc_cli.specs import KINDS, Kind, OptimizerSpec

Layer = dict[str, dict[str, Any]]
"""Settings by section."""


def merge(tables: Sequence[Mapping[str, Any]], component: Component | None = None) -> dict[str, Any]:
    """Merge the tables of one section, weakest first; with a component, tables for another one are dropped."""
    merged: dict[str, Any] = {}
    for table in tables:
        if component is None or is_for(table, component):
            merged.update({name: value for name, value in table.items() if name != "name"})
    return merged


def is_for(table: Mapping[str, Any], component: Component) -> bool:
    """Return whether a table names that component, or none."""
    if "name" not in table:
        return True
    distribution, name = split_reference(str(table["name"]))
    own = distribution is None or normalized(distribution) == normalized(component.distribution)
    return own and name == component.spec.name


def own_name(kind: Kind, name: str, distribution: str, registry: Registry) -> str:
    """Return the reference of a distribution's own component of that name, or else the name.

    A recipe or an optimizer keeps the components it was written for when another plugin claims the same name.
    """
    own = [c for c in registry.components(kind) if c.name == name and c.distribution == distribution]
    return own[0].reference if own else name


def base_component(optimizer: Component, tables: Sequence[Mapping[str, Any]], registry: Registry) -> Component | None:
    """Return the optimizer that another one wraps; None for one that wraps none.

    Raises:
        UsageError: there is no optimizer of that name, or it evaluates more than once per step.
    """
    spec = _optimizer_spec(optimizer)
    if not spec.base:
        return None
    inner = [_base_table(table) for table in tables if is_for(table, optimizer)]
    named = [table["name"] for table in inner if "name" in table]
    usual = own_name("optimizer", spec.base, optimizer.distribution, registry)
    base = registry.find("optimizer", str(named[-1]) if named else usual)
    if not _is_single(_optimizer_spec(base)):
        single = [c.name for c in registry.components("optimizer") if _is_single(_optimizer_spec(c))]
        raise UsageError(
            f"optimizer.base={base.name}: {optimizer.name} cannot wrap an optimizer that evaluates its objective more "
            f"than once per step; choose one of {', '.join(single)}"
        )
    return base


def split_base(
    tables: Sequence[Mapping[str, Any]], optimizer: Component, base: Component
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the settings of an optimizer and those of its base.

    The base's settings are in the table "base". Settings that only the base has may also be among the optimizer's own
    (`optimizer.lr`), and a table for the base's name alone, as a recipe has for SGD, belongs to the base.

    Raises:
        UsageError: neither has an option of that name.
    """
    own_names, base_names = option_names(optimizer.options_type()), option_names(base.options_type())
    own: dict[str, Any] = {}
    base_tables: list[dict[str, Any]] = []
    for table in tables:
        if not is_for(table, optimizer):
            base_tables.append(dict(table))
            continue
        inherited = {k: v for k, v in table.items() if k not in ("name", "base") and k not in own_names}
        for name in inherited:
            if name not in base_names:
                raise UsageError(
                    f"optimizer.{name}: no such option.{did_you_mean(name, [*own_names, *base_names])} Options of "
                    f"optimizer: base, {', '.join(own_names)}; of its base {base.name}: {', '.join(base_names)}"
                )
        own.update({k: v for k, v in table.items() if k in own_names})
        base_tables.append({**inherited, **_base_table(table)})
    return own, merge(base_tables, base)


def tracker_tables(
    trackers: Sequence[Component], tables: Sequence[Mapping[str, Any]], train: Sequence[Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Return the settings of each tracker in use, by its name.

    `tables` and `train` are the `[tracker]` and `[train]` sections, weakest first. Settings of a tracker that one
    `[train]` turns on and a later one off are dropped.

    Raises:
        UsageError: two trackers in use have the same name, or settings are for a tracker that was never on.
    """
    merged: dict[str, dict[str, Any]] = {}
    for tracker in trackers:
        if tracker.name in merged:
            raise UsageError(f"train.track: two trackers are called '{tracker.name}'; use only one of them")
        merged[tracker.name] = {}
    ever_used = {split_reference(str(name))[1] for table in train for name in _listed(table.get("track"))}
    for table in tables:
        for name, settings in table.items():
            if not isinstance(settings, Mapping):
                raise UsageError(f"tracker.{name}: name the tracker, as in tracker.NAME.{name}")
            if name in merged:
                merged[name].update(settings)
            elif name not in ever_used:
                near = did_you_mean(name, merged)
                raise UsageError(f"tracker.{name}: this tracker is not in use.{near} Turn it on with `track={name}`")
    return merged


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else ()


def _base_table(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return the table of the base; `base = "adamw"` is short for its name."""
    base = table.get("base", {})
    return dict(base) if isinstance(base, Mapping) else {"name": base}


def _optimizer_spec(component: Component) -> OptimizerSpec:
    assert isinstance(component.spec, OptimizerSpec)
    return component.spec


def _is_single(spec: OptimizerSpec) -> bool:
    return not spec.base and spec.passes == 1


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


BUILTIN = Origin(BUILTIN_DISTRIBUTION, "")


@dataclass(frozen=True)
class Recipe:
    """A recipe.

    Attributes:
        name: of the recipe.
        settings: those that always apply.
        whens: conditional settings, in their order.
        origin: distribution that registers the recipe, and its version.
    """

    name: str
    settings: Layer
    whens: tuple[When, ...] = field(default=())
    origin: Origin = BUILTIN

    @property
    def reference(self) -> str:
        """The name that a run records: with the distribution, unless it is built in."""
        return self.name if self.origin.builtin else f"{self.origin.distribution}:{self.name}"

    def names(self) -> dict[str, str]:
        """Return the components that the recipe chooses, by kind."""
        return {kind: table["name"] for kind, table in self.settings.items() if "name" in table}

    def known_as(self, component: Component, registry: Registry) -> str:
        """Return the name that conditions match; the reference if the bare name means the recipe's own component."""
        meant = own_name(component.kind, component.name, self.origin.distribution, registry)
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
        return Recipe(component.spec.name, settings, whens, component.origin)
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
