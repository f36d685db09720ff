"""The registry: everything that plugins registered, and how a name resolves to a component."""

from __future__ import annotations

import copy
import logging
import re
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout, suppress
from functools import cache
from typing import Any

from fgvc_cli import settings as settings_module
from fgvc_cli.errors import STOPS, FgvcError, UsageError, cause_of, did_you_mean
from fgvc_cli.registry.loading import (
    RUN_EVENTS,
    InstalledPlugin,
    Loader,
    PluginError,
    check_spec,
    disabled_plugins,
    installed_plugins,
)
from fgvc_cli.registry.records import Component, PluginRecord, RegisteredFamily, import_name, normalized
from fgvc_cli.settings import Settings
from fgvc_cli.specs import KINDS, PLURALS, SPEC_TYPES, Kind

logger = logging.getLogger(__name__)

MAX_NAMES, MAX_FAILURES = 20, 3
"""Known names and plugins that did not load, shown in the error for an unknown name."""


class NotInstalledError(UsageError):
    """No plugin of a distribution is installed, for `distribution:name`."""

    def __init__(self, message: str, kind: Kind, name: str, distribution: str) -> None:
        super().__init__(message)
        self.kind, self.name, self.distribution = kind, name, distribution


class Registry:
    """Components that plugins registered, and a record of each plugin.

    Attributes:
        plugins: a record per entry point, including failed and disabled ones, sorted by distribution and name.
    """

    def __init__(self, plugins: Sequence[PluginRecord]) -> None:
        self.plugins = tuple(plugins)
        self._warned: set[str] = set()

    def components(self, kind: Kind) -> list[Component]:
        """List the components of a kind, sorted by name and distribution."""
        found = [component for plugin in self.plugins for component in plugin.components if component.kind == kind]
        return sorted(found, key=lambda component: (component.name, component.distribution))

    def families(self, kind: Kind) -> list[RegisteredFamily]:
        """List the families of names of a kind, sorted by prefix and distribution."""
        found = [family for plugin in self.plugins for family in plugin.families if family.family.kind == kind]
        return sorted(found, key=lambda family: (family.family.prefix, family.origin.distribution))

    def clashes(self, kind: Kind) -> dict[str, list[Component]]:
        """Return the names of a kind that more than one plugin registers, with their components."""
        by_name: dict[str, list[Component]] = {}
        for component in self.components(kind):
            by_name.setdefault(component.name, []).append(component)
        return {name: components for name, components in by_name.items() if len(components) > 1}

    def find(self, kind: Kind, name: str) -> Component:
        """Resolve a name, `distribution:name`, or a member of a family such as "timm/resnet18" to a component.

        Raises:
            UsageError: the name is unknown, or ambiguous without its distribution.
            FgvcError: a family's resolver failed.
        """
        distribution, bare = split_reference(name)
        wanted = None if distribution is None else normalized(distribution)
        loaded = {normalized(plugin.distribution) for plugin in self.plugins if plugin.status == "loaded"}
        if distribution is not None and wanted not in loaded:
            raise self._unknown_distribution(kind, name, distribution)
        components = [
            c for c in self.components(kind) if c.name == bare and wanted in (None, normalized(c.distribution))
        ]
        families = [
            f
            for f in self.families(kind)
            if bare.startswith(f.family.prefix) and wanted in (None, normalized(f.origin.distribution))
        ]
        if len(components) + len(families) > 1:
            origins = [*(c.origin for c in components), *(f.origin for f in families)]
            choices = " or ".join(f"{origin.distribution}:{bare}" for origin in origins)
            raise UsageError(f"{kind} '{bare}' is registered by more than one plugin; write {choices}")
        if components:
            return components[0]
        resolved = _resolve(families[0], bare) if families else None
        if resolved is None:
            raise self._unknown_name(kind, bare, distribution, families)
        return resolved

    def not_loaded(self, name: str) -> list[str]:
        """Describe the plugins, failed or disabled, that may have registered a name; similar names first."""
        absent = [plugin for plugin in self.plugins if plugin.status != "loaded"]
        absent.sort(key=lambda plugin: _similarity(plugin, name.lower()), reverse=True)
        more = len(absent) - MAX_FAILURES
        rest = [f"{more} more plugin{'s are' if more > 1 else ' is'} not loaded."] if more > 0 else []
        return [*(_reason(plugin) for plugin in absent[:MAX_FAILURES]), *rest]

    def notify(self, hook_name: str, **arguments: Any) -> None:
        """Call a run event of every plugin that implements it.

        Each plugin gets its own copy of dicts (metrics, summary). If it raises, a warning is logged once, and the other
        plugins and the run continue.
        """
        if hook_name not in RUN_EVENTS:
            raise ValueError(f"{hook_name} is not a run event")
        for plugin in self.plugins:
            implementation = plugin.hooks.get(hook_name)
            if implementation is None:
                continue
            given = {name: arguments[name] for name in implementation.argnames}
            try:
                with redirect_stdout(sys.stderr):  # standard output belongs to the command
                    implementation.function(
                        **{name: copy.deepcopy(v) if isinstance(v, dict) else v for name, v in given.items()}
                    )
            except STOPS:
                raise
            except (Exception, SystemExit) as error:
                text = f"{plugin.origin}: {hook_name} failed, the run continues: {cause_of(error)}"
                self.warn_once(text, f"{plugin.distribution} {plugin.name} {hook_name}")

    def warn_once(self, text: str, subject: str = "") -> None:
        """Log a warning unless this registry has warned of its subject (default: the text) before."""
        subject = subject or text
        if subject not in self._warned:
            self._warned.add(subject)
            logger.warning(text)

    def _unknown_name(
        self, kind: Kind, name: str, distribution: str | None, families: Sequence[RegisteredFamily]
    ) -> UsageError:
        components = self.components(kind)
        if distribution is not None:
            components = [c for c in components if normalized(c.distribution) == normalized(distribution)]
        names = list(dict.fromkeys(component.name for component in components))
        patterns = [family.pattern for family in self.families(kind)] if distribution is None else []
        shown = ", ".join([*names[:MAX_NAMES], *(["..."] if len(names) > MAX_NAMES else []), *patterns]) or "none"
        problem = f"unknown {kind} '{name}'" + (f" of {distribution}" if distribution else "")
        if families:
            problem += f": the family '{families[0].pattern}' has no such member"
        parts = [
            f"{problem}.",
            (self._in_family(kind, name) or did_you_mean(name.lower(), names)).strip(),
            f"Known: {shown}.",
            *self.not_loaded(name),
        ]
        return UsageError(" ".join(part for part in parts if part))

    def _in_family(self, kind: Kind, name: str) -> str:
        """Return `" Did you mean 'timm/x'?"` if a family has a member of this name, or an empty string."""
        for registered in self.families(kind):
            member = f"{registered.family.prefix}{name}"
            with suppress(FgvcError):
                if "/" not in name and _resolve(registered, member) is not None:
                    return f" Did you mean '{member}'?"
        return ""

    def _unknown_distribution(self, kind: Kind, name: str, distribution: str) -> UsageError:
        """Return the error for `distribution:name` when no plugin of the distribution is loaded."""
        own = [p for p in self.plugins if normalized(p.distribution) == normalized(distribution)]
        if own:
            return UsageError(f"{kind} '{name}': {' '.join(_reason(plugin) for plugin in own)}")
        known = sorted({p.distribution for p in self.plugins})
        suggestion = did_you_mean(normalized(distribution), known)
        text = (
            f"{kind} '{name}': no distribution '{distribution}' with a plugin is installed.{suggestion} "
            f"Installed: {', '.join(known)}."
        )
        return NotInstalledError(text, kind, split_reference(name)[1], distribution)


def _similarity(plugin: PluginRecord, name: str) -> tuple[bool, int]:
    """Return whether a plugin's name contains all of a component's name, and the number of common words."""
    text = f"{plugin.distribution} {plugin.module}".lower()
    words = [set(re.findall(r"[a-z0-9]+", each)) for each in (name, text)]
    return name in text, len(words[0] & words[1])


def _reason(plugin: PluginRecord) -> str:
    if plugin.status == "disabled":
        return f"{plugin.origin} is disabled ({plugin.cause})."
    return plugin.failure if plugin.failure.endswith("?") else f"{plugin.failure}."


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
            raise ValueError(f"it returned '{spec.name}' for '{name}'")
        check_spec(spec, family_member=True)
    except STOPS:
        raise
    except BaseException as error:
        if isinstance(error, FgvcError) and not isinstance(error, PluginError):
            raise  # the resolver's own message to the user
        raise FgvcError(
            f"{family.kind} '{name}': the family '{registered.pattern}' of {origin} failed: {cause_of(error)}"
        ) from error
    return Component(spec, origin)


def check_kind(text: str) -> Kind:
    """Return a kind of component by its name, singular or plural.

    Raises:
        UsageError: there is no such kind.
    """
    for kind in KINDS:
        if text.lower() in (kind, PLURALS[kind]):
            return kind
    raise UsageError(f"unknown kind of component '{text}'.{did_you_mean(text, KINDS)} Kinds: {', '.join(KINDS)}.")


def split_reference(name: str) -> tuple[str | None, str]:
    """Split `distribution:name`; a ":" after a "/" belongs to a family's member (`timm/hf-hub:org/model`)."""
    before, colon, after = name.partition(":")
    return (before, after) if colon and "/" not in before else (None, name)


def discover(settings: Settings, installed: Sequence[InstalledPlugin] | None = None) -> Registry:
    """Load every installed plugin (or those in `installed`) that the settings allow.

    Raises:
        FgvcError: the built-ins are not installed, or a plugin failed in strict mode.
        UsageError: the settings name a distribution without a plugin.
    """
    plugins = installed_plugins() if installed is None else list(installed)
    if not any(plugin.origin.builtin for plugin in plugins):
        raise FgvcError("the built-in plugins are not installed; run `pip install -e .` in the folder of fgvc's source")
    disabled = disabled_plugins(plugins, settings)
    loader = Loader()
    records = [
        PluginRecord(p.name, p.origin, p.module, "disabled", cause=disabled[p]) if p in disabled else loader.load(p)
        for p in plugins
    ]
    failed = [record.failure for record in records if record.status == "failed"]
    if settings.strict_plugins and failed:
        raise FgvcError(f"plugins failed in strict mode: {'; '.join(failed)}")
    return Registry(records)


def get_registry() -> Registry:
    """Return the registry of this process; plugins are discovered on first use, by the settings in force."""
    settings = settings_module.current()
    return _discovered(settings.disable_plugins, settings.only_plugins, settings.strict_plugins)


@cache
def _discovered(*_policy: object) -> Registry:
    return discover(settings_module.current())
