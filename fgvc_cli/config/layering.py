"""Layers of settings: files, command-line options and `--set`, merged by precedence."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from fgvc_cli.errors import UsageError, did_you_mean
from fgvc_cli.registry import Component, Registry
from fgvc_cli.registry.lookup import split_reference
from fgvc_cli.registry.records import normalized
from fgvc_cli.specs import Kind, OptimizerSpec


def merge(tables: Sequence[Mapping[str, Any]], component: Component | None = None) -> dict[str, Any]:
    """Lay tables of settings over each other, weakest first.

    Args:
        tables: of one section; a component's may have its "name".
        component: the one chosen in the end; settings that a table has for another one are dropped.
    """
    merged: dict[str, Any] = {}
    for table in tables:
        if component is None or is_for(table, component):
            merged.update({name: value for name, value in table.items() if name != "name"})
    return merged


def is_for(table: Mapping[str, Any], component: Component) -> bool:
    """Say whether a table is for that component: it names it, or none."""
    if "name" not in table:
        return True
    distribution, name = split_reference(str(table["name"]))
    own = distribution is None or normalized(distribution) == normalized(component.distribution)
    return own and name == component.spec.name


def own_name(kind: Kind, name: str, distribution: str, registry: Registry) -> str:
    """Return the name by which a plugin's own text means a component: its own one, where it registers one so called.

    What a recipe chooses, or an optimizer is built over, stays what it is when another plugin claims that name too.
    """
    own = [c for c in registry.components(kind) if c.name == name and c.distribution == distribution]
    return own[0].reference if own else name


def base_component(optimizer: Component, tables: Sequence[Mapping[str, Any]], registry: Registry) -> Component | None:
    """Return the optimizer that another one is built over; None for one that takes its steps itself.

    Raises:
        UsageError: there is no optimizer of that name, or it is none that evaluates once a step.
    """
    spec = _optimizer_spec(optimizer)
    if not spec.base:
        return None
    inner = [_base_table(table) for table in tables if is_for(table, optimizer)]
    named = [table["name"] for table in inner if "name" in table]
    usual = own_name("optimizer", spec.base, optimizer.distribution, registry)
    base = registry.find("optimizer", str(named[-1]) if named else usual)
    if (found := _optimizer_spec(base)).base or found.passes > 1:
        single = [c.name for c in registry.components("optimizer") if _is_single(_optimizer_spec(c))]
        raise UsageError(
            f"optimizer.base={base.name}: it evaluates its objective more than once a step, and {optimizer.name} has "
            f"one evaluation to give. Choose one of {', '.join(single)}."
        )
    return base


def split_base(
    tables: Sequence[Mapping[str, Any]], optimizer: Component, base: Component
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the settings of an optimizer and those of its base.

    The base's stand under "base"; settings that only the base has may also stand beside the optimizer's own
    (`optimizer.lr`), and a table for the base's name alone, as a recipe has for SGD, is the base's.

    Raises:
        UsageError: neither has a setting of that name.
    """
    own_names, base_names = _option_names(optimizer), _option_names(base)
    own: dict[str, Any] = {}
    base_tables: list[dict[str, Any]] = []
    for table in tables:
        if not is_for(table, optimizer):
            base_tables.append(dict(table))
            continue
        beside = {k: v for k, v in table.items() if k not in ("name", "base") and k not in own_names}
        for name in beside:
            if name not in base_names:
                raise UsageError(
                    f"optimizer.{name}: no such option.{did_you_mean(name, [*own_names, *base_names])} Options of "
                    f"optimizer: base, {', '.join(own_names)}; of its base {base.name}: {', '.join(base_names)}."
                )
        own.update({k: v for k, v in table.items() if k in own_names})
        base_tables.append({**beside, **_base_table(table)})
    return own, merge(base_tables, base)


def tracker_tables(
    trackers: Sequence[Component], tables: Sequence[Mapping[str, Any]], train: Sequence[Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Return the settings of each tracker that is on, by its name.

    Args:
        trackers: those that are on in the end.
        tables: the `[tracker]` sections, weakest first: settings by tracker.
        train: the `[train]` sections; settings for a tracker that one of them turned on, and a later one turned off
            again, are dropped.

    Raises:
        UsageError: two of one name are on, or settings are for none that was ever on.
    """
    merged: dict[str, dict[str, Any]] = {}
    for tracker in trackers:
        if tracker.name in merged:
            raise UsageError(f"train.track: two trackers are called '{tracker.name}'; only one of them can be on.")
        merged[tracker.name] = {}
    once_on = {split_reference(str(name))[1] for table in train for name in _listed(table.get("track"))}
    for table in tables:
        for name, settings in table.items():
            if not isinstance(settings, Mapping):
                raise UsageError(f"tracker.{name}: write whose option it is, as tracker.NAME.{name}.")
            if name in merged:
                merged[name].update(settings)
            elif name not in once_on:
                near = did_you_mean(name, merged)
                raise UsageError(f"tracker.{name}: that tracker is not on.{near} Turn it on with --track {name}.")
    return merged


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else ()


def _base_table(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a table says of the base; `base = "adamw"` is short for its name."""
    base = table.get("base", {})
    return dict(base) if isinstance(base, Mapping) else {"name": base}


def _optimizer_spec(component: Component) -> OptimizerSpec:
    assert isinstance(component.spec, OptimizerSpec)
    return component.spec


def _is_single(spec: OptimizerSpec) -> bool:
    return not spec.base and spec.passes == 1


def _option_names(component: Component) -> list[str]:
    return [field.name for field in dataclasses.fields(component.options_type())]


Layer = dict[str, dict[str, Any]]
