"""Select and run the checks of plugins and components. Free of torch until checks of a kind are needed."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fgvc_cli.errors import FgvcError, UsageError, did_you_mean
from fgvc_cli.registry import Component, PluginRecord, Registry, get_registry
from fgvc_cli.registry.lookup import check_kind, split_reference
from fgvc_cli.registry.records import normalized
from fgvc_cli.specs import KINDS
from fgvc_cli.testing.check import Check, CheckResult, NotApplicable, Status
from fgvc_cli.testing.component import SPEC, ComponentUnderTest, section_of
from fgvc_cli.testing.plugin import PLUGIN, PluginUnderTest


def contract(
    kind: str,
    name: str,
    options: Mapping[str, Any] | None = None,
    *,
    data: Path | str | None = None,
    partners: bool = True,
) -> list[Check]:
    """Return the contract checks of a component.

    The checks run on the CPU, in any order, independently of each other: first with tiny partners, then with the
    built-in components that the component has to work with.

    Args:
        kind: "backbone", "head", "optimizer", "dataset", "explainer", "tracker", "exporter", "launcher", "recipe" or
            "study".
        name: its name: "bilinear", "fgvc-bilinear:bilinear", "timm/resnet18".
        options: values to set over the component's defaults; small ones make the checks fast.
        data: folder or file that a dataset is read from (None: a small generated one).
        partners: whether to include the checks with built-in partners, which take longer.

    Raises:
        UsageError: the kind or the component does not exist.
    """
    registry = get_registry()
    component = registry.find(check_kind(kind), name)
    path = None if data is None else Path(data)
    return checks_of(ComponentUnderTest(component, registry, dict(options or {}), path), partners)


def checks_of(subject: ComponentUnderTest, partners: bool = True) -> list[Check]:
    """Return the checks of a component; see `contract`."""
    module = importlib.import_module(f"fgvc_cli.testing.{subject.kind}")
    checks: list[Check] = [*SPEC.of(subject), *module.CHECKS.of(subject)]
    if partners:
        from fgvc_cli.testing.partners import partner_checks  # imports torch

        checks += partner_checks(subject)
    return checks


@dataclass(frozen=True)
class Selection:
    """Plugins and components to check; components include those of the plugins."""

    plugins: tuple[PluginRecord, ...]
    components: tuple[Component, ...]


def select(name: str, registry: Registry) -> Selection:
    """Return what a distribution, `distribution:component`, or the name of a component of any kind refers to.

    Raises:
        UsageError: the name is unknown, or components of more than one distribution have it.
        FgvcError: the distribution is disabled.
    """
    distribution, bare = split_reference(name)
    if distribution is None and (plugins := _plugins_of(name, registry)):
        return Selection(plugins, tuple(component for plugin in plugins for component in plugin.components))
    if distribution is not None and not _plugins_of(distribution, registry):
        raise _unknown(distribution, registry)
    components = _named(bare, distribution, registry)
    origins = sorted({component.distribution for component in components})
    if len(origins) > 1:
        choices = " or ".join(f"{origin}:{bare}" for origin in origins)
        raise UsageError(f"'{bare}' is registered by more than one distribution; write {choices}")
    if not components:
        raise _unknown(name, registry)
    return Selection((), tuple(components))


def _plugins_of(distribution: str, registry: Registry) -> tuple[PluginRecord, ...]:
    plugins = tuple(p for p in registry.plugins if normalized(p.distribution) == normalized(distribution))
    disabled = next((p for p in plugins if p.status == "disabled"), None)
    if disabled is not None:
        raise FgvcError(f"{disabled.origin} is disabled ({disabled.cause}); enable it to check it")
    return plugins


def _named(bare: str, distribution: str | None, registry: Registry) -> list[Component]:
    """Return the components of a name, of every kind, or else the members of families."""
    found = [
        component
        for kind in KINDS
        for component in registry.components(kind)
        if component.name == bare and distribution in (None, component.distribution)
    ]
    if found:
        return found
    reference = bare if distribution is None else f"{distribution}:{bare}"
    kinds = [k for k in KINDS if any(bare.startswith(f.family.prefix) for f in registry.families(k))]
    return [registry.find(kind, reference) for kind in kinds]


def _unknown(name: str, registry: Registry) -> UsageError:
    distributions = list(dict.fromkeys(plugin.distribution for plugin in registry.plugins))
    names = [component.name for kind in KINDS for component in registry.components(kind)]
    suggestion = did_you_mean(name.lower(), [*distributions, *names])
    known = f"Distributions with plugins: {', '.join(distributions)}."
    problem = f"'{name}' is neither a distribution with a plugin nor a component.{suggestion} {known}"
    return UsageError(" ".join([problem, *registry.not_loaded(name)]))


@dataclass(frozen=True)
class PlannedCheck:
    """A check of a plugin or component; `kind` is "plugin" or a kind of component."""

    kind: str
    name: str
    check: Check

    @property
    def what(self) -> str:
        """What is checked: "head bilinear"."""
        return f"{self.kind} {self.name}"

    def run(self) -> FinishedCheck:
        """Run the check; output of components goes to standard error."""
        with contextlib.redirect_stdout(sys.stderr):
            return FinishedCheck(self, self.check.result())


@dataclass(frozen=True)
class FinishedCheck:
    """A check and its result."""

    planned: PlannedCheck
    result: CheckResult


def count_by_status(checks: Sequence[FinishedCheck]) -> Counter[Status]:
    """Count results by status."""
    return Counter(check.result.status for check in checks)


def plan_checks(
    selection: Selection,
    registry: Registry,
    options: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
    data: Path | None = None,
    partners: bool = True,
    only: str = "",
) -> list[PlannedCheck]:
    """Return the checks of plugins and components, in order.

    Args:
        selection: plugins and components.
        registry: their partners.
        options: values to set over components' defaults, by section: a kind, or "tracker.NAME".
        data: folder or file for datasets that are read from one.
        partners: whether to include the checks with built-in partners.
        only: only checks whose title contains this text; empty: all.

    Raises:
        UsageError: no check's title contains `only`, an option is invalid, or options or data apply to nothing.
    """
    sections = {section_of(component) for component in selection.components}
    for section in options:
        if section not in sections:
            raise UsageError(f"there are options for {section!r}, but nothing of that kind is checked")
    if data is not None and not any(component.kind == "dataset" for component in selection.components):
        raise UsageError(f"`data={data}` was given, but no dataset is checked")
    under_test = (PluginUnderTest(plugin, registry) for plugin in selection.plugins)
    found = [PlannedCheck("plugin", p.plugin.name, check) for p in under_test for check in PLUGIN.of(p)]
    for component in selection.components:
        values = options.get(section_of(component), {})
        subject = ComponentUnderTest(component, registry, values, data if component.kind == "dataset" else None)
        if values:
            with contextlib.suppress(NotApplicable):  # options that cannot be imported fail a check
                subject.options()  # raises UsageError for invalid values: not the component's fault
        found += [PlannedCheck(component.kind, component.name, check) for check in checks_of(subject, partners)]
    chosen = [planned for planned in found if only.lower() in planned.check.title.lower()]
    if not chosen:
        titles = list(dict.fromkeys(planned.check.title for planned in found))
        raise UsageError(
            f"no check's title contains {only!r}.{did_you_mean(only, titles)} Checks: {'; '.join(titles)}."
        )
    return chosen
