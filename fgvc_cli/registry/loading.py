"""Loads one plugin at a time: imports it, verifies its hooks, calls them, and keeps a record of what came of it."""

from __future__ import annotations

import contextlib
import importlib
import sys
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pluggy

from fgvc_cli import hookspecs
from fgvc_cli.registry.checks import PluginError, check_family, check_hooks, check_items, check_spec
from fgvc_cli.registry.installed import InstalledPlugin
from fgvc_cli.registry.records import HEAVY_MODULES, Component, PluginRecord, RegisteredFamily, cause_of
from fgvc_cli.specs import KINDS, SPEC_TYPES, ComponentSpec, Family, plural

RUN_EVENTS = ("fgvc_run_started", "fgvc_epoch_finished", "fgvc_run_finished")
"""The hooks that are called while a run goes on."""


@dataclass
class Registered:
    """What one plugin registered, while it is being loaded."""

    components: list[Component] = field(default_factory=list)
    families: list[RegisteredFamily] = field(default_factory=list)
    commands: Mapping[str, Any] = field(default_factory=dict)
    hooks: dict[str, pluggy.HookImpl] = field(default_factory=dict)


class Loader:
    """Loads plugins one after the other into one pluggy manager, which verifies their hooks' signatures."""

    def __init__(self) -> None:
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self._taken: set[tuple[str, str, str]] = set()  # (distribution, kind, name or prefix)

    def load(self, plugin: InstalledPlugin) -> PluginRecord:
        """Import a plugin and take what it registers, all of it or, if any part is wrong, nothing."""
        present = {name for name in HEAVY_MODULES if name in sys.modules}
        started = time.perf_counter()
        registered, cause, trace = Registered(), "", ""
        try:
            # What a plugin prints when it is imported must not end up in a command's result.
            with contextlib.redirect_stdout(sys.stderr):
                registered = self._registered(plugin)
        except KeyboardInterrupt:
            _say_where_it_hung(plugin)
            raise
        except BaseException as error:  # SystemExit too: a script named by mistake calls sys.exit() when imported
            cause, trace = cause_of(error), "".join(traceback.format_exception(error))
        return PluginRecord(
            name=plugin.name,
            origin=plugin.origin,
            module=plugin.module,
            status="failed" if cause else "loaded",
            milliseconds=(time.perf_counter() - started) * 1000,
            heavy_modules=tuple(n for n in HEAVY_MODULES if n in sys.modules and n not in present),
            cause=cause,
            traceback=trace,
            components=tuple(registered.components),
            families=tuple(registered.families),
            commands=registered.commands,
            hooks=registered.hooks,
        )

    def _registered(self, plugin: InstalledPlugin) -> Registered:
        module = _import_plugin(plugin.module)
        key = f"{plugin.distribution}:{plugin.name} = {plugin.module}"
        try:
            self._manager.register(module, key)
        except ValueError:  # pluggy's word for an object that is registered already
            raise PluginError(f"{plugin.module} is already loaded by another entry point") from None
        try:
            implementations = self._implementations(module)
            check_hooks(module, implementations)
            registered = _collect(plugin, dict(implementations))
            self._take(plugin, registered)
        except BaseException:
            self._manager.unregister(module)
            raise
        return registered

    def _implementations(self, module: Any) -> list[tuple[str, pluggy.HookImpl]]:
        callers = self._manager.get_hookcallers(module) or []
        return [(c.name, i) for c in callers for i in c.get_hookimpls() if i.plugin is module]

    def _take(self, plugin: InstalledPlugin, registered: Registered) -> None:
        """Note the names as taken; `distribution:name` must name one thing."""
        names = [(c.kind, c.name) for c in registered.components]
        names += [(f.family.kind, f.family.prefix) for f in registered.families]
        for index, (kind, name) in enumerate(names):
            if (kind, name) in names[:index]:
                raise PluginError(f"it registers the {kind} '{name}' twice")
            if (plugin.distribution, kind, name) in self._taken:
                raise PluginError(f"another plugin of {plugin.distribution} registers the {kind} '{name}' already")
        self._taken.update((plugin.distribution, kind, name) for kind, name in names)


def _say_where_it_hung(plugin: InstalledPlugin) -> None:
    """Name the plugin that was being loaded when a person lost patience: it may be what takes so long."""
    from fgvc_cli.display import console

    leave_out = "" if plugin.origin.builtin else f": FGVC_DISABLE_PLUGINS={plugin.distribution} leaves it out"
    console.warn(f"interrupted while {plugin.origin} was being loaded{leave_out}")


def _import_plugin(value: str) -> Any:
    """Import what an entry point names: a module, or an object in it ("module:object")."""
    module_name, _, attributes = value.split("[")[0].strip().partition(":")
    found: Any = importlib.import_module(module_name.strip())
    for attribute in filter(None, attributes.strip().split(".")):
        found = getattr(found, attribute)
    return found


def _collect(plugin: InstalledPlugin, hooks: dict[str, pluggy.HookImpl]) -> Registered:
    """Call the hooks that say what a plugin adds, and check what they return."""
    registered = Registered(hooks={name: hooks[name] for name in RUN_EVENTS if name in hooks})
    for kind in KINDS:
        hook = f"fgvc_{plural(kind)}"
        if hook in hooks:
            specs: list[ComponentSpec] = check_items(hook, hooks[hook].function(), SPEC_TYPES[kind])
            for spec in specs:
                check_spec(spec)
                registered.components.append(Component(spec, plugin.origin))
    if "fgvc_families" in hooks:
        families: list[Family] = check_items("fgvc_families", hooks["fgvc_families"].function(), Family)
        for family in families:
            check_family(family)
            registered.families.append(RegisteredFamily(family, plugin.origin))
    if "fgvc_commands" in hooks:
        from fgvc_cli.registry.subcommands import collect_commands

        registered.commands = collect_commands(hooks["fgvc_commands"])
    return registered
