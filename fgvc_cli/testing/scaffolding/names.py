"""Names of a new plugin: component, distribution, package and classes."""

from __future__ import annotations

import re
from dataclasses import dataclass

from fgvc_cli.errors import UsageError, did_you_mean
from fgvc_cli.registry import Registry
from fgvc_cli.specs import KINDS, PLURALS, Kind

HOST_PACKAGE = "fgvc_cli"
PREFIX = "fgvc-"
"""What the names of distributions with plugins begin with, so that a search for it finds them."""

LONGEST = 24
"""Letters of a component's name at most: a column of `fgvc list-plugins` has to hold it."""

HOSTS_CLASSES = ("TorchOptimizer", "ComposedOptimizer")
"""Classes of the contracts that a component's own class could be called like."""

NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")
RULE = "a name is of lower-case letters, digits and single '-' or '_', and begins with a letter"

SCAFFOLDED: tuple[Kind, ...] = ("backbone", "head", "optimizer", "dataset", "explainer")
"""The kinds that there is a scaffold for."""


@dataclass(frozen=True)
class PluginNames:
    """The names of one new plugin.

    Attributes:
        kind: the kind of its component.
        component: what a person types, such as "gem-pool".
        distribution: what pip installs, such as "fgvc-gem-pool".
        package: what Python imports, such as "fgvc_gem_pool".
        stem: what its classes' names begin with, such as "GemPool".
    """

    kind: Kind
    component: str
    distribution: str
    package: str
    stem: str


def scaffold_kind(text: str | None) -> Kind:
    """Return the kind that a scaffold is asked for, singular or plural.

    Raises:
        UsageError: none is given, or there is no scaffold for it.
    """
    choices = f"{', '.join(SCAFFOLDED[:-1])} or {SCAFFOLDED[-1]}"
    if text is None:
        raise UsageError(f"--kind: say what the plugin adds: {choices}.")
    for kind in SCAFFOLDED:
        if text.lower() in (kind, PLURALS[kind]):
            return kind
    if any(text.lower() in (kind, PLURALS[kind]) for kind in KINDS):
        raise UsageError(
            f"--kind {text}: there is no scaffold for it, docs/plugins.md has an example. Here: {choices}."
        )
    raise UsageError(f"--kind {text}: no such kind.{did_you_mean(text.lower(), SCAFFOLDED)} Write {choices}.")


def plugin_names(given: str, kind: Kind) -> PluginNames:
    """Derive all names from the one that a person gives: the component's ("gem-pool") or "fgvc-gem-pool".

    Raises:
        UsageError: it is no name.
    """
    component = given.removeprefix(PREFIX)
    if component.startswith("fgvc_"):
        raise UsageError(f"'{given}': leave out 'fgvc_', which the package gets by itself.{_nearest(component[5:])}")
    if not NAME.fullmatch(component) or component == "fgvc":
        raise UsageError(f"'{given}' cannot be the name of a plugin: {RULE}.{_nearest(component)}")
    if len(component) > LONGEST:
        raise UsageError(f"'{given}' cannot be the name of a plugin: it has more than {LONGEST} letters.")
    words = re.split("[-_]", component)
    stem = "".join(word.capitalize() for word in words if word != kind) or words[0].capitalize()
    if f"{stem}{kind.capitalize()}" in HOSTS_CLASSES:
        stem = f"My{stem}"
    return PluginNames(kind, component, PREFIX + "-".join(words), "fgvc_" + "_".join(words), stem)


def refuse_taken(names: PluginNames, registry: Registry) -> None:
    """Refuse the names of what is built in.

    Raises:
        UsageError: a built-in component of that kind has the name, or a package of fgvc's own.
    """
    builtin = {component.name for component in registry.components(names.kind) if component.builtin}
    if names.component in builtin:
        raise UsageError(
            f"'{names.component}' is a built-in {names.kind}, which no other can replace: choose another name, such as "
            f"my-{names.component}."
        )
    own = {plugin.module.partition(".")[0] for plugin in registry.plugins if plugin.builtin}
    if names.package in {HOST_PACKAGE, *own}:
        raise UsageError(
            f"'{names.component}' would be the package {names.package}, which is fgvc's own: choose another name, such "
            f"as my-{names.component}."
        )


def taken_elsewhere(names: PluginNames, registry: Registry) -> str | None:
    """Return a note if another installed plugin has a component of that kind and name, else None."""
    for component in registry.components(names.kind):
        if component.name == names.component and not component.builtin:
            return (
                f"{component.origin} registers a {names.kind} '{names.component}' too: with both installed, each is "
                f"reached as distribution:{names.component} alone."
            )
    return None


def _nearest(name: str) -> str:
    """Suggest the valid name that comes nearest to one that is not, if any does."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name)
    near = re.sub(r"[^a-z0-9]+", "-", spaced.lower()).strip("-0123456789")
    return f" Did you mean '{near}'?" if NAME.fullmatch(near) and near != "fgvc" else ""
