"""Run the checks of plugins and components, and collect the outcomes."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fgvc_cli.errors import UsageError, did_you_mean
from fgvc_cli.registry import Registry, get_registry
from fgvc_cli.registry.lookup import check_kind
from fgvc_cli.specs import Kind
from fgvc_cli.testing.check import Check, NotApplicable, Outcome, Status
from fgvc_cli.testing.plugin import PLUGIN, PluginSubject
from fgvc_cli.testing.select import Chosen
from fgvc_cli.testing.spec import SPEC
from fgvc_cli.testing.subject import Subject, section_of

MODULES: dict[Kind, str] = {
    "backbone": "fgvc_cli.testing.backbone",
    "head": "fgvc_cli.testing.head",
    "optimizer": "fgvc_cli.testing.optimizer",
    "dataset": "fgvc_cli.testing.dataset",
    "explainer": "fgvc_cli.testing.explainer",
    "tracker": "fgvc_cli.testing.tracker",
    "recipe": "fgvc_cli.testing.recipe",
    "study": "fgvc_cli.testing.study",
}
"""Where the checks of each kind are: a function `checks(subject)`. Most import torch."""


def contract(
    kind: str,
    name: str,
    options: Mapping[str, Any] | None = None,
    *,
    data: Path | str | None = None,
    partners: bool = True,
) -> list[Check]:
    """Return the checks of everything that a component of its kind must keep.

    They run on the CPU, in any order, and each stands alone. Small partners of the kit's own come first; then the
    component meets the built-in components that it has to work with.

    Args:
        kind: "backbone", "head", "optimizer", "dataset", "explainer", "tracker", "recipe" or
            "study".
        name: as a person types it: "bilinear", "fgvc-bilinear:bilinear", "timm/resnet18".
        options: values to set over the component's defaults, as `--set` would; small ones make for quick checks.
        data: for a dataset that is made from a folder or a file: which (None: a small one of the kit's own).
        partners: whether to check it with the built-in partners too, which takes longer.

    Raises:
        UsageError: there is no such kind or component.
    """
    registry = get_registry()
    checked = check_kind(kind)
    component = registry.find(checked, name)
    return checks_of(Subject(component, registry, dict(options or {}), None if data is None else Path(data)), partners)


def checks_of(subject: Subject, partners: bool = True) -> list[Check]:
    """Return the checks of a component; see `contract`."""
    module = importlib.import_module(MODULES[subject.kind])
    checks: list[Check] = [*SPEC.of(subject), *module.checks(subject)]
    if partners:
        from fgvc_cli.testing.partners import partner_checks  # torch

        checks += partner_checks(subject)
    return checks


@dataclass(frozen=True)
class Examination:
    """What to check, and how.

    Attributes:
        chosen: plugins and components.
        registry: knows their partners.
        options: values to set over components' defaults, by kind; those of trackers by kind and name: "tracker.mlflow".
        data: what datasets that are made from a folder or a file are made from.
        partners: whether to check with the built-in partners.
        only: checks whose title has this text; empty: all.
    """

    chosen: Chosen
    registry: Registry
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    data: Path | None = None
    partners: bool = True
    only: str = ""

    def planned(self) -> list[Planned]:
        """Return the checks to run, in order.

        Raises:
            UsageError: no check has `only` in its title, or options or data are for nothing that is checked.
        """
        self._expect_used()
        found = [*self._of_plugins(), *self._of_components()]
        titles = list(dict.fromkeys(planned.check.title for planned in found))
        chosen = [planned for planned in found if self.only.lower() in planned.check.title.lower()]
        if not chosen:
            near = did_you_mean(self.only, titles)
            raise UsageError(f"--only {self.only!r}: no check is called so.{near} Checks: {'; '.join(titles)}.")
        return chosen

    def _of_plugins(self) -> Iterator[Planned]:
        for plugin in self.chosen.plugins:
            subject = PluginSubject(plugin, self.registry)
            yield from (Planned("plugin", plugin.name, check) for check in PLUGIN.of(subject))

    def _of_components(self) -> Iterator[Planned]:
        for component in self.chosen.components:
            data = self.data if component.kind == "dataset" else None
            subject = Subject(component, self.registry, self.options.get(section_of(component), {}), data)
            yield from (Planned(component.kind, component.name, check) for check in self._checks(subject))

    def _expect_used(self) -> None:
        sections = {section_of(component) for component in self.chosen.components}
        for section in self.options:
            if section not in sections:
                raise UsageError(f"--set {section}.*: nothing of the kind is checked here.")
        if self.data is not None and not any(component.kind == "dataset" for component in self.chosen.components):
            raise UsageError(f"--data {self.data}: no dataset is checked here.")

    def _checks(self, subject: Subject) -> Sequence[Check]:
        """Return a component's checks; options that do not fit are the person's fault, not the component's."""
        if subject.values:
            with contextlib.suppress(NotApplicable):  # they cannot be imported: a check of its own says so
                subject.options()
        return checks_of(subject, self.partners)


@dataclass(frozen=True)
class Planned:
    """A check of something: its kind ("plugin" or a kind of component) and its name."""

    kind: str
    name: str
    check: Check

    @property
    def what(self) -> str:
        """What is checked: "head bilinear"."""
        return f"{self.kind} {self.name}"

    def examined(self) -> Examined:
        """Run the check; what components print goes to standard error."""
        with contextlib.redirect_stdout(sys.stderr):
            return Examined(self, self.check.outcome())


@dataclass(frozen=True)
class Examined:
    """A check and what came of it."""

    planned: Planned
    outcome: Outcome


def counted(results: Sequence[Examined]) -> Counter[Status]:
    """Count the results by status."""
    return Counter(result.outcome.status for result in results)
