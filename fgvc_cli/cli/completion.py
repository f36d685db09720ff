"""Shell completion of kinds, components and plugins."""

from __future__ import annotations

from collections.abc import Callable

import typer

from fgvc_cli.errors import FgvcError
from fgvc_cli.specs import KINDS, Kind


def component_names(kind: Kind) -> Callable[[str], list[tuple[str, str]]]:
    """Return the completion of component names, for `typer.Option(autocompletion=component_names("head"))`."""

    def complete(incomplete: str) -> list[tuple[str, str]]:
        return _names(kind, incomplete)

    return complete


def kinds(incomplete: str) -> list[str]:
    """Complete the kind of a component."""
    return [name for name in KINDS if name.startswith(incomplete)]


def kinds_and_settings(incomplete: str) -> list[str]:
    """Complete the first argument of `fgvc show`."""
    return [name for name in (*KINDS, "settings") if name.startswith(incomplete)]


def names_of_kind_given(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Complete a component's name after its kind."""
    kind = context.params.get("kind")
    return next((_names(known, incomplete) for known in KINDS if known == kind), [])


def plugins_and_components(incomplete: str) -> list[tuple[str, str]]:
    """Complete the argument of `fgvc check-plugin`: a distribution with a plugin, or a component of any kind."""
    from fgvc_cli.registry import get_registry

    components = {name: summary for kind in KINDS for name, summary in _names(kind, incomplete)}
    try:
        plugins = get_registry().plugins
    except FgvcError:
        return []
    distributions = {p.distribution: "a distribution" for p in plugins if p.distribution.startswith(incomplete)}
    return [*distributions.items(), *components.items()]


def _names(kind: Kind, incomplete: str) -> list[tuple[str, str]]:
    from fgvc_cli.registry import get_registry

    try:
        registry = get_registry()
    except FgvcError:  # completion cannot show an error; the command itself will
        return []
    clashing = registry.clashes(kind)
    names = [(c.reference if c.name in clashing else c.name, c.spec.summary) for c in registry.components(kind)]
    names += [(f.family.prefix, f.family.summary) for f in registry.families(kind)]
    return [(name, summary) for name, summary in names if name.startswith(incomplete)]
