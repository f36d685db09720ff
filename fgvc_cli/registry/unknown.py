"""What to say when a name is not known: the nearest names, all names, and plugins that may be the reason."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fgvc_cli.errors import UsageError, did_you_mean
from fgvc_cli.registry.records import PluginRecord, RegisteredFamily, normalised
from fgvc_cli.specs import Kind

if TYPE_CHECKING:
    from fgvc_cli.registry.lookup import Registry

NAMES_SHOWN = 20
FAILURES_SHOWN = 3
WORDS = re.compile(r"[a-z0-9]+")


def unknown_name(
    registry: Registry, kind: Kind, name: str, distribution: str | None, families: Sequence[RegisteredFamily]
) -> UsageError:
    """Make the error for a name that no plugin registers (or that a family has no member for)."""
    components = registry.components(kind)
    if distribution is not None:
        components = [c for c in components if normalised(c.distribution) == normalised(distribution)]
    names = list(dict.fromkeys(component.name for component in components))
    patterns = [family.pattern for family in registry.families(kind)] if distribution is None else []
    shown = ", ".join([*names[:NAMES_SHOWN], *(["..."] if len(names) > NAMES_SHOWN else []), *patterns]) or "none"
    whose = f" of {distribution}" if distribution else ""
    parts = [
        f"{kind} '{name}': the family '{families[0].pattern}' has no such member."
        if families
        else f"{kind} '{name}': there is no such {kind}{whose}.",
        did_you_mean(name.lower(), names).strip(),
        f"Known: {shown}.",
        *reasons(registry, name),
    ]
    return UsageError(" ".join(part for part in parts if part))


def unknown_distribution(registry: Registry, kind: Kind, name: str, distribution: str) -> UsageError:
    """Make the error for `distribution:name` when nothing of that distribution is loaded."""
    start = f"{kind} '{name}':"
    own = [p for p in registry.plugins if normalised(p.distribution) == normalised(distribution)]
    if not own:
        known = sorted({p.distribution for p in registry.plugins})
        near = did_you_mean(normalised(distribution), known)
        return UsageError(
            f"{start} no distribution '{distribution}' with a plugin is installed.{near} Installed: {', '.join(known)}."
        )
    return UsageError(f"{start} {' '.join(_reason(plugin) for plugin in own)}")


def reasons(registry: Registry, name: str) -> list[str]:
    """Say which plugins, failed or disabled, might have provided a name; those that are called alike come first."""
    absent = [plugin for plugin in registry.plugins if plugin.status != "loaded"]
    absent.sort(key=lambda plugin: _likeness(plugin, name.lower()), reverse=True)
    more = len(absent) - FAILURES_SHOWN
    rest = [f"{more} more plugins are not loaded: fgvc list-plugins."] if more > 0 else []
    return [*(_reason(plugin) for plugin in absent[:FAILURES_SHOWN]), *rest]


def _likeness(plugin: PluginRecord, name: str) -> tuple[bool, int]:
    """Return how alike a plugin and a component are called: by all of the name, or by how many words."""
    called = f"{plugin.distribution} {plugin.module}".lower()
    return name in called, len({word for word in WORDS.findall(name) if word in WORDS.findall(called)})


def _reason(plugin: PluginRecord) -> str:
    if plugin.status == "disabled":
        return f"{plugin.origin} is disabled ({plugin.cause})."
    return plugin.failure if plugin.failure.endswith("?") else f"{plugin.failure}."
