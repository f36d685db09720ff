"""Load one plugin at a time: import it, check its hooks, call them, and record the outcome."""

from __future__ import annotations

import contextlib
import importlib
import logging
import re
import sys
import time
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from types import FunctionType
from typing import Any

import pluggy
import typer

from fgvc_cli import hookspecs
from fgvc_cli.errors import FgvcError, did_you_mean
from fgvc_cli.registry.installed import InstalledPlugin
from fgvc_cli.registry.records import HEAVY_MODULES, Component, PluginRecord, RegisteredFamily, cause_of
from fgvc_cli.specs import (
    API_VERSION,
    KINDS,
    SPEC_TYPES,
    BackboneSpec,
    ComponentSpec,
    Family,
    HeadSpec,
    OptimizerSpec,
    plural,
)

logger = logging.getLogger(__name__)

HOOKS = tuple(name for name, member in vars(hookspecs).items() if hasattr(member, f"{hookspecs.PROJECT}_spec"))
"""The names of all hooks, in the order of `fgvc_cli.hookspecs`."""

NAME = re.compile(r"[a-z0-9][a-z0-9._+-]*")
PREFIX = re.compile(r"[a-z0-9][a-z0-9._+-]*/")
TARGET = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
FILE_TARGET = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:(?!.*\.\.)[\w.-]+(/[\w.-]+)*\.toml")


class PluginError(FgvcError):
    """A plugin is not what it should be. The message is the cause alone; the record names the plugin."""


def check_hooks(module: Any, implementations: Sequence[tuple[str, pluggy.HookImpl]]) -> None:
    """Check that a plugin implements hooks that exist, each once, and that none lacks its mark.

    Args:
        module: the plugin.
        implementations: its hook implementations and the hooks they name, as pluggy found them.
    """
    names = [name for name, _ in implementations]
    for name, implementation in implementations:
        if name not in HOOKS:
            raise PluginError(f"it implements '{name}', which is no hook of fgvc.{did_you_mean(name, HOOKS)}")
        if names.count(name) > 1:
            raise PluginError(f"it implements '{name}' more than once")
        if implementation.wrapper or implementation.hookwrapper:
            raise PluginError(f"its '{name}' is a hook wrapper, which fgvc does not call")
    for name in HOOKS:
        member = getattr(module, name, None)
        unmarked = isinstance(member, FunctionType) and not hasattr(member, f"{hookspecs.PROJECT}_spec")
        if unmarked and name not in names:
            raise PluginError(f"its function '{name}' has no @hookimpl above it, so it would never be called")
    if not names:
        raise PluginError("it implements no hook: nothing in it is marked with @hookimpl")


def check_items(hook: str, returned: Any, wanted: type) -> list[Any]:
    """Check that a hook returned several specs of the right type, and return them as a list."""
    if returned is None or isinstance(returned, str | bytes) or not isinstance(returned, Iterable):
        raise PluginError(f"{hook} returned {_shown(returned)} instead of a list of {wanted.__name__}")
    items = list(returned)
    for item in items:
        if not isinstance(item, wanted):
            raise PluginError(f"{hook} returned {_shown(item)} where a {wanted.__name__} belongs")
    return items


def check_spec(spec: ComponentSpec, *, family_member: bool = False) -> None:
    """Check what a plugin says of one component; a member of a family is free in its name."""
    what = f"{spec.kind} {spec.name!r}"
    _check_api(what, spec.api)
    _check_text(what, spec)
    if not family_member and not NAME.fullmatch(spec.name):
        raise PluginError(f"{what}: a name is of lower-case letters, digits, '.', '_', '-' and '+'")
    if spec.kind == "tracker" and "." in spec.name:
        raise PluginError(f"{what}: the name of a tracker has no '.', for its settings are tracker.NAME.option")
    form = ("package:path.toml", FILE_TARGET) if spec.is_file else ("package.module:Name", TARGET)
    if not form[1].fullmatch(spec.target):
        raise PluginError(f"{what}: its target {spec.target!r} has not the form {form[0]!r}")
    if spec.options and not TARGET.fullmatch(spec.options):
        raise PluginError(f"{what}: its options {spec.options!r} have not the form 'package.module:Name'")
    _check_numbers(what, spec)


def check_family(family: Family) -> None:
    """Check what a plugin says of a family of names."""
    what = f"family {family.prefix!r}"
    _check_api(what, family.api)
    _check_text(what, family)
    if family.kind not in KINDS:
        raise PluginError(f"{what}: no kind of component is called {family.kind!r}")
    if not PREFIX.fullmatch(family.prefix):
        raise PluginError(f"{what}: a prefix is a lower-case name that ends in '/'")
    if not TARGET.fullmatch(family.resolver):
        raise PluginError(f"{what}: its resolver {family.resolver!r} has not the form 'package.module:function'")


def _check_api(what: str, api: Any) -> None:
    if not isinstance(api, int) or api < 1:
        raise PluginError(f"{what}: its API version is {api!r}, not a number from 1 up")
    if api != API_VERSION:
        mend = "upgrade fgvc-cli" if api > API_VERSION else "look for a newer release of the plugin"
        raise PluginError(
            f"{what} was written for version {api} of the plugin interface, and this fgvc speaks version "
            f"{API_VERSION}: {mend}"
        )


def _check_text(what: str, record: ComponentSpec | Family) -> None:
    for item in fields(record):
        value = getattr(record, item.name)
        if item.type == "str" and not isinstance(value, str):
            raise PluginError(f"{what}: its {item.name} is {_shown(value)}, not text")


def _check_numbers(what: str, spec: ComponentSpec) -> None:
    if isinstance(spec, BackboneSpec):
        strides = spec.strides
        if not isinstance(strides, tuple) or not all(isinstance(s, int) and s > 0 for s in strides):
            raise PluginError(f"{what}: its strides are {_shown(strides)}, not a tuple of numbers from 1 up")
    if isinstance(spec, HeadSpec) and not (isinstance(spec.maps, int) and spec.maps >= 0):
        raise PluginError(f"{what}: its maps are {_shown(spec.maps)}, not a number from 0 up")
    if isinstance(spec, OptimizerSpec) and not (isinstance(spec.passes, int) and spec.passes >= 1):
        raise PluginError(f"{what}: its passes are {_shown(spec.passes)}, not a number from 1 up")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def collect_commands(implementation: pluggy.HookImpl) -> Mapping[str, Any]:
    """Call a plugin's `fgvc_commands` and return the commands and groups that it added, by name.

    They are built here, not when the command line is read: a parameter of a type that Typer does not know fails now.
    """
    app = typer.Typer(add_completion=False)
    arguments = {"app": app} if "app" in implementation.argnames else {}
    implementation.function(**arguments)
    if not (app.registered_commands or app.registered_groups):
        return {}
    commands: Mapping[str, Any] = typer.main.get_group(app).commands
    return commands


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
    leave_out = "" if plugin.origin.builtin else f": FGVC_DISABLE_PLUGINS={plugin.distribution} leaves it out"
    logger.warning(f"interrupted while {plugin.origin} was being loaded{leave_out}")


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
        pass

        registered.commands = collect_commands(hooks["fgvc_commands"])
    return registered
