"""The registry: everything the plugins registered, and how a name resolves to a component."""

from __future__ import annotations

import copy
import logging
import re
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from functools import cache
from typing import Any, get_args

from fgvc_cli import settings as settings_module
from fgvc_cli.errors import FgvcError, UsageError, did_you_mean
from fgvc_cli.registry.installed import InstalledPlugin, disabled_plugins, installed_plugins, require_builtins
from fgvc_cli.registry.loading import HOOKS, Loader, PluginError, check_spec
from fgvc_cli.registry.records import Component, PluginRecord, RegisteredFamily, cause_of, import_name, normalized
from fgvc_cli.settings import Settings
from fgvc_cli.specs import KINDS, SPEC_TYPES, Kind, plural

logger = logging.getLogger(__name__)

NAMES_SHOWN = 20
FAILURES_SHOWN = 3
WORDS = re.compile(r"[a-z0-9]+")


def unknown_name(
    registry: Registry, kind: Kind, name: str, distribution: str | None, families: Sequence[RegisteredFamily]
) -> UsageError:
    """Make the error for a name that no plugin registers (or that a family has no member for)."""
    components = registry.components(kind)
    if distribution is not None:
        components = [c for c in components if normalized(c.distribution) == normalized(distribution)]
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
    own = [p for p in registry.plugins if normalized(p.distribution) == normalized(distribution)]
    if not own:
        known = sorted({p.distribution for p in registry.plugins})
        near = did_you_mean(normalized(distribution), known)
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


class Registry:
    """What the plugins registered, and a record of each plugin.

    Attributes:
        plugins: a record of each entry point, sorted by distribution and name; failed and disabled ones too.
    """

    def __init__(self, plugins: Sequence[PluginRecord]) -> None:
        self.plugins = tuple(plugins)
        self._warned: set[tuple[str, str, str]] = set()

    def components(self, kind: Kind) -> list[Component]:
        """List the components of a kind, sorted by name; two of one name both appear."""
        found = [component for plugin in self.plugins for component in plugin.components if component.kind == kind]
        return sorted(found, key=lambda component: (component.name, component.distribution))

    def families(self, kind: Kind) -> list[RegisteredFamily]:
        """List the families of names of a kind, sorted by prefix."""
        found = [family for plugin in self.plugins for family in plugin.families if family.family.kind == kind]
        return sorted(found, key=lambda family: (family.family.prefix, family.origin.distribution))

    def clashes(self, kind: Kind) -> dict[str, list[Component]]:
        """Return the names of a kind that more than one plugin claims, and the components that claim them."""
        by_name: dict[str, list[Component]] = {}
        for component in self.components(kind):
            by_name.setdefault(component.name, []).append(component)
        return {name: components for name, components in by_name.items() if len(components) > 1}

    def find(self, kind: Kind, name: str) -> Component:
        """Return the component that a person means.

        Args:
            kind: the kind of component.
            name: its name, `distribution:name`, or a member of a family such as "timm/resnet18".

        Raises:
            UsageError: there is none, or more than one plugin claims the bare name.
            FgvcError: a family's resolver failed.
        """
        distribution, bare = split_reference(name)
        if distribution is not None and not self._offers(distribution):
            raise unknown_distribution(self, kind, name, distribution)
        components = [c for c in self.components(kind) if c.name == bare and _from(c.distribution, distribution)]
        families = [
            f
            for f in self.families(kind)
            if bare.startswith(f.family.prefix) and _from(f.origin.distribution, distribution)
        ]
        if len(components) + len(families) > 1:
            origins = [*(c.origin for c in components), *(f.origin for f in families)]
            choices = " or ".join(f"{origin.distribution}:{bare}" for origin in origins)
            raise UsageError(f"{kind} '{bare}': more than one plugin registers that name; write {choices}.")
        if components:
            return components[0]
        resolved = _resolve(families[0], bare) if families else None
        if resolved is None:
            raise unknown_name(self, kind, bare, distribution, families)
        return resolved

    def notify(self, hook_name: str, **arguments: Any) -> None:
        """Call a run event of every plugin that implements it.

        Each is called alone, with tables (metrics, summary) of its own; one that raises is warned of once, and neither
        stops the others nor the run.
        """
        if hook_name not in HOOKS:
            raise ValueError(f"{hook_name} is no hook")
        for plugin in self.plugins:
            implementation = plugin.hooks.get(hook_name)
            if implementation is None:
                continue
            try:
                with redirect_stdout(sys.stderr):  # standard output is the command's
                    implementation.function(**{name: _own(arguments[name]) for name in implementation.argnames})
            except (Exception, SystemExit) as error:
                self._warn_once(plugin, hook_name, error)

    def _warn_once(self, plugin: PluginRecord, hook_name: str, error: BaseException) -> None:
        key = (plugin.distribution, plugin.name, hook_name)
        if key in self._warned:
            return
        self._warned.add(key)
        logger.warning(f"{plugin.origin}: its {hook_name} failed, the run goes on: {cause_of(error)}")

    def _offers(self, distribution: str) -> bool:
        wanted = normalized(distribution)
        return any(normalized(p.distribution) == wanted and p.status == "loaded" for p in self.plugins)


def check_kind(text: str) -> Kind:
    """Return a kind of component by its name, singular or plural.

    Raises:
        UsageError: there is no such kind.
    """
    for kind in get_args(Kind):
        if text.lower() in (kind, plural(kind)):
            found: Kind = kind
            return found
    raise UsageError(f"'{text}' is no kind of component.{did_you_mean(text, KINDS)} Kinds: {', '.join(KINDS)}.")


def split_reference(name: str) -> tuple[str | None, str]:
    """Split `distribution:name`; a ":" after a "/" belongs to the member of a family (`timm/hf-hub:org/model`)."""
    before, colon, after = name.partition(":")
    return (before, after) if colon and "/" not in before else (None, name)


def discover(settings: Settings, installed: Sequence[InstalledPlugin] | None = None) -> Registry:
    """Load every installed plugin that the settings allow.

    Args:
        settings: which plugins may load, and whether a failed one is an error.
        installed: the plugins to load instead of those that are installed.

    Raises:
        FgvcError: the built-ins are not installed, or a plugin failed and the settings are strict.
        UsageError: the settings name a distribution that has no plugin.
    """
    plugins = installed_plugins() if installed is None else list(installed)
    require_builtins(plugins)
    disabled = disabled_plugins(plugins, settings)
    loader = Loader()
    records = [
        PluginRecord(p.name, p.origin, p.module, "disabled", cause=disabled[p]) if p in disabled else loader.load(p)
        for p in plugins
    ]
    failed = [record for record in records if record.status == "failed"]
    if settings.strict and failed:
        raise FgvcError(f"--strict-plugins: {'; '.join(record.failure for record in failed)}")
    return Registry(records)


def get_registry() -> Registry:
    """Return the registry of this program; plugins are discovered the first time, by the settings in force."""
    settings = settings_module.current()
    return _discovered(settings.disable_plugins, settings.only_plugins, settings.strict)


@cache
def _discovered(*_policy: object) -> Registry:
    """Discover once for each set of rules on which plugins may load."""
    return discover(settings_module.current())


def _own(argument: Any) -> Any:
    """Return a table's copy: what one plugin changes in it, neither the others nor the host's own files are told."""
    return copy.deepcopy(argument) if isinstance(argument, dict) else argument


def _from(distribution: str, wanted: str | None) -> bool:
    return wanted is None or normalized(distribution) == normalized(wanted)


def _resolve(registered: RegisteredFamily, name: str) -> Component | None:
    """Ask a family for one of its members; None if it has no such member."""
    family, origin = registered.family, registered.origin
    try:
        spec = import_name(family.resolver)(name)
        if spec is None:
            return None
        if not isinstance(spec, SPEC_TYPES[family.kind]):
            raise TypeError(f"it returned {spec!r}, not a {SPEC_TYPES[family.kind].__name__}")
        if spec.name != name:
            raise ValueError(f"it was asked for '{name}' and returned '{spec.name}'")
        check_spec(spec, family_member=True)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        if isinstance(error, FgvcError) and not isinstance(error, PluginError):
            raise  # the resolver's own word to the person who typed the name
        raise FgvcError(
            f"{family.kind} '{name}': the family '{registered.pattern}' of {origin} failed: {cause_of(error)}"
        ) from error
    return Component(spec, origin)
