"""Select what `fgvc check-plugin NAME` checks. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass

from fgvc_cli.errors import FgvcError, UsageError, did_you_mean
from fgvc_cli.registry import Component, PluginRecord, Registry
from fgvc_cli.registry.lookup import split_reference
from fgvc_cli.registry.records import normalized
from fgvc_cli.specs import KINDS


@dataclass(frozen=True)
class Chosen:
    """What is to be checked.

    Attributes:
        plugins: whole plugins, each with what it registers.
        components: all components to check, those of the plugins included.
    """

    plugins: tuple[PluginRecord, ...]
    components: tuple[Component, ...]


def choose(name: str, registry: Registry) -> Chosen:
    """Find what a person means.

    Args:
        name: a distribution ("fgvc-bilinear"), `distribution:component`, or a component's name in whatever kind.
        registry: knows what is installed.

    Raises:
        UsageError: there is nothing of that name, or more than one distribution has components of it.
        FgvcError: the distribution is disabled.
    """
    distribution, bare = split_reference(name)
    if distribution is None and (plugins := _of_distribution(name, registry)):
        return Chosen(plugins, tuple(component for plugin in plugins for component in plugin.components))
    if distribution is not None and not _of_distribution(distribution, registry):
        raise _unknown(distribution, registry)
    components = _named(bare, distribution, registry)
    origins = sorted({component.distribution for component in components})
    if len(origins) > 1:
        choices = " or ".join(f"{origin}:{bare}" for origin in origins)
        raise UsageError(f"'{bare}': more than one distribution registers that name; write {choices}.")
    if not components:
        raise _unknown(name, registry)
    return Chosen((), tuple(components))


def _of_distribution(name: str, registry: Registry) -> tuple[PluginRecord, ...]:
    plugins = tuple(p for p in registry.plugins if normalized(p.distribution) == normalized(name))
    disabled = next((p for p in plugins if p.status == "disabled"), None)
    if disabled is not None:
        raise FgvcError(f"{disabled.origin} is disabled ({disabled.cause}): allow it, to have it checked.")
    return plugins


def _named(bare: str, distribution: str | None, registry: Registry) -> list[Component]:
    """Return the components of that name, of every kind; a member of a family where no component is called so."""
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
    near = did_you_mean(name.lower(), [*distributions, *names])
    told = [
        f"'{name}': no distribution with a plugin and no component is called so.{near} "
        f"Distributions with plugins: {', '.join(distributions)}; fgvc list-plugins lists the components.",
        *registry.not_loaded(name),
    ]
    return UsageError(" ".join(told))
