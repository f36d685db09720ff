"""Names of a new plugin: component, distribution, package and classes."""

from __future__ import annotations

import re
from dataclasses import dataclass

from fgvc_cli.errors import UsageError, did_you_mean
from fgvc_cli.registry import Registry
from fgvc_cli.specs import KINDS, PLURALS, Kind

HOST_PACKAGE = "fgvc_cli"
PREFIX = "fgvc-"
"""Prefix of distributions with plugins, by which users find them."""

MAX_LENGTH = 24
"""Maximum length of a component's name: it has to fit into a column of `fgvc list-plugins`."""

RESERVED_CLASSES = ("TorchOptimizer", "ComposedOptimizer", "FittedHead")
"""Base classes that the class of a component could have the same name as."""

NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")
RULE = "a name consists of lower-case letters, digits and single '-' or '_', and starts with a letter"

SCAFFOLDED: tuple[Kind, ...] = ("backbone", "head", "optimizer", "dataset", "explainer", "exporter", "launcher")
"""Kinds of component with a scaffold."""


@dataclass(frozen=True)
class PluginNames:
    """Names of a new plugin.

    Attributes:
        kind: kind of its component.
        component: name of the component, such as "gem-pool".
        distribution: name of the distribution, such as "fgvc-gem-pool".
        package: name of the Python package, such as "fgvc_gem_pool".
        stem: prefix of the names of its classes, such as "GemPool".
    """

    kind: Kind
    component: str
    distribution: str
    package: str
    stem: str


def scaffold_kind(text: str | None) -> Kind:
    """Return the kind of a scaffold by its name, singular or plural.

    Raises:
        UsageError: no kind is given, or there is no scaffold for it.
    """
    choices = f"{', '.join(SCAFFOLDED[:-1])} or {SCAFFOLDED[-1]}"
    if text is None:
        raise UsageError(f"`kind` is missing; choose {choices}")
    for kind in SCAFFOLDED:
        if text.lower() in (kind, PLURALS[kind]):
            return kind
    if any(text.lower() in (kind, PLURALS[kind]) for kind in KINDS):
        raise UsageError(f"there is no scaffold for kind '{text}' (docs/plugins.md has an example); choose {choices}")
    raise UsageError(f"unknown kind '{text}'.{did_you_mean(text.lower(), SCAFFOLDED)} Choose {choices}.")


def plugin_names(given: str, kind: Kind) -> PluginNames:
    """Derive all names from that of the component ("gem-pool") or of the distribution ("fgvc-gem-pool").

    Raises:
        UsageError: the name is invalid.
    """
    component = given.removeprefix(PREFIX)
    if component.startswith("fgvc_"):
        raise UsageError(f"'{given}': omit 'fgvc_', which is added to the package's name.{_suggestion(component[5:])}")
    if not NAME.fullmatch(component) or component == "fgvc":
        raise UsageError(f"'{given}' is not a valid plugin name: {RULE}.{_suggestion(component)}")
    if len(component) > MAX_LENGTH:
        raise UsageError(f"'{given}' is not a valid plugin name: it has more than {MAX_LENGTH} characters")
    words = re.split("[-_]", component)
    stem = "".join(word.capitalize() for word in words if word != kind) or words[0].capitalize()
    if f"{stem}{kind.capitalize()}" in RESERVED_CLASSES:
        stem = f"My{stem}"
    return PluginNames(kind, component, PREFIX + "-".join(words), "fgvc_" + "_".join(words), stem)


def refuse_taken(names: PluginNames, registry: Registry) -> None:
    """Check that nothing built in has these names.

    Raises:
        UsageError: a built-in component of that kind, or a package of fgvc, has the name.
    """
    builtin = {component.name for component in registry.components(names.kind) if component.builtin}
    if names.component in builtin:
        raise UsageError(
            f"'{names.component}' is a built-in {names.kind}, which plugins cannot replace; choose another name, "
            f"such as my-{names.component}"
        )
    own = {plugin.module.partition(".")[0] for plugin in registry.plugins if plugin.builtin}
    if names.package in {HOST_PACKAGE, *own}:
        raise UsageError(
            f"'{names.component}' gives the package name {names.package}, which fgvc uses; choose another name, "
            f"such as my-{names.component}"
        )


def taken_elsewhere(names: PluginNames, registry: Registry) -> str | None:
    """Return a note if another installed plugin has a component of that kind and name."""
    for component in registry.components(names.kind):
        if component.name == names.component and not component.builtin:
            return (
                f"{component.origin} registers a {names.kind} '{names.component}' too: with both installed, write "
                f"distribution:{names.component} for each"
            )
    return None


def _suggestion(name: str) -> str:
    """Return a suggestion of the valid name that is closest to an invalid one, if there is one."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name)
    near = re.sub(r"[^a-z0-9]+", "-", spaced.lower()).strip("-0123456789")
    return f" Did you mean '{near}'?" if NAME.fullmatch(near) and near != "fgvc" else ""
