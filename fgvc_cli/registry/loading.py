"""Find installed plugins and load them one at a time: import, check, collect, and record the outcome."""

from __future__ import annotations

import contextlib
import importlib
import logging
import re
import sys
import time
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from importlib.metadata import Distribution, distributions
from types import FunctionType
from typing import Any

import pluggy

from fgvc_cli import hookspecs
from fgvc_cli.errors import STOPS, FgvcError, UsageError, cause_of, did_you_mean
from fgvc_cli.registry.records import (
    BUILTIN_DISTRIBUTION,
    Component,
    Origin,
    PluginRecord,
    RegisteredFamily,
    normalized,
)
from fgvc_cli.settings import ALL_PLUGINS, Settings
from fgvc_cli.specs import (
    API_VERSION,
    KINDS,
    PLURALS,
    SPEC_TYPES,
    BackboneSpec,
    ComponentSpec,
    ExporterSpec,
    Family,
    HeadSpec,
    OptimizerSpec,
)

logger = logging.getLogger(__name__)

GROUP = "fgvc"
"""Entry-point group of plugins."""

HEAVY_MODULES = ("torch", "timm", "torchvision")
"""Modules that a plugin should not import to register."""

HOOKS = tuple(name for name, member in vars(hookspecs).items() if hasattr(member, f"{hookspecs.PROJECT}_spec"))
"""Names of all hooks, in the order of `fgvc_cli.hookspecs`."""

RUN_EVENTS = ("fgvc_run_started", "fgvc_epoch_finished", "fgvc_run_finished")
"""Hooks that are called during a training run."""

NAME = re.compile(r"[a-z0-9][a-z0-9._+-]*")
PREFIX = re.compile(r"[a-z0-9][a-z0-9._+-]*/")
TARGET = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
SUFFIX = re.compile(r"\.[a-z0-9]+")
PRECISIONS = ("fp32", "fp16", "int8")
"""Precisions of exported files."""
FILE_TARGET = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:(?!.*\.\.)[\w.-]+(/[\w.-]+)*\.toml")
PAGE = re.compile(FILE_TARGET.pattern.removesuffix("toml") + "md")


class PluginError(FgvcError):
    """A plugin breaks the plugin interface. The message is the cause alone; the record names the plugin."""


@dataclass(frozen=True, order=True)
class InstalledPlugin:
    """One entry point of an installed distribution; `module` is its value."""

    distribution: str
    name: str
    module: str
    version: str

    @property
    def origin(self) -> Origin:
        """Its distribution and version."""
        return Origin(self.distribution, self.version)


def installed_plugins(path: list[str] | None = None) -> list[InstalledPlugin]:
    """List the entry points in group `fgvc`, sorted by distribution and name, without importing any.

    A distribution may be found twice, in site-packages and in a checkout on the path; the first one wins. Distributions
    with unreadable metadata are skipped. `path` replaces `sys.path`.
    """
    found: dict[tuple[str, str, str], InstalledPlugin] = {}
    named: set[tuple[str, str]] = set()
    for distribution in distributions(path=path) if path is not None else distributions():
        plugins = [p for p in _entry_points(distribution) if (normalized(p.distribution), p.name) not in named]
        for plugin in plugins:
            key = normalized(plugin.distribution), plugin.name
            named.add(key)
            found.setdefault((*key, plugin.module), plugin)
    return sorted(found.values())


def _entry_points(distribution: Distribution) -> list[InstalledPlugin]:
    try:
        # Parsing is slow, and most distributions have no plugin.
        if f"[{GROUP}]" not in (distribution.read_text("entry_points.txt") or ""):
            return []
        name, version = distribution.metadata["Name"], distribution.version
        entries = [entry for entry in distribution.entry_points if entry.group == GROUP]
        return [InstalledPlugin(str(name), entry.name, entry.value, str(version)) for entry in entries]
    except Exception:  # damaged metadata of a third party
        return []


def disabled_plugins(plugins: Sequence[InstalledPlugin], settings: Settings) -> dict[InstalledPlugin, str]:
    """Return the plugins that must not be imported, each with the setting that disables it.

    Raises:
        UsageError: the settings name a distribution without a plugin, or disable the built-ins.
    """
    external = [plugin for plugin in plugins if not plugin.origin.builtin]
    known = {normalized(p.distribution): p.distribution for p in external}
    deny, allow = settings.origin("disable_plugins"), settings.origin("only_plugins")
    denied = _distributions((n for n in settings.disable_plugins if n != ALL_PLUGINS), known, deny)
    if BUILTIN_DISTRIBUTION in denied:
        raise UsageError(f"{deny}={BUILTIN_DISTRIBUTION}: the built-in components cannot be disabled")
    if ALL_PLUGINS in settings.disable_plugins:
        denied = set(known)
    allowed = set(known)
    if settings.only_plugins is not None:
        allowed = _distributions(settings.only_plugins, known, allow)
    disabled = {}
    for plugin in external:
        name = normalized(plugin.distribution)
        if name in denied or name not in allowed:
            disabled[plugin] = deny if name in denied else allow
    return disabled


def _distributions(names: Iterable[str], known: Mapping[str, str], setting: str) -> set[str]:
    """Normalize the distributions that a setting names, and check that each has a plugin."""
    checked = set()
    for given in names:
        name = normalized(given)
        if name not in known and name != BUILTIN_DISTRIBUTION:
            installed = ", ".join(sorted(known.values())) or "none"
            raise UsageError(
                f"{setting}: no installed distribution named '{given}' has a plugin.{did_you_mean(name, known)} "
                f"Distributions with plugins: {installed}."
            )
        checked.add(name)
    return checked


class Loader:
    """Loads plugins one after the other into one pluggy manager, which verifies the signatures of hooks."""

    def __init__(self) -> None:
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self._taken: set[tuple[str, str, str]] = set()  # (distribution, kind, name or prefix)

    def load(self, plugin: InstalledPlugin) -> PluginRecord:
        """Import a plugin and collect what it registers: everything, or nothing if any part is invalid."""
        present = {name for name in HEAVY_MODULES if name in sys.modules}
        record = PluginRecord(plugin.name, plugin.origin, plugin.module, "loaded")
        started = time.perf_counter()
        try:
            with contextlib.redirect_stdout(sys.stderr):  # standard output belongs to the command
                record = self._register(record)
        except STOPS:
            hint = "" if record.builtin else f"; FGVC_DISABLE_PLUGINS={record.distribution} disables it"
            logger.warning(f"interrupted while loading {record.origin}{hint}")
            raise
        except BaseException as error:  # SystemExit too: a script may call sys.exit() when imported
            trace = "".join(traceback.format_exception(error))
            record = replace(record, status="failed", cause=cause_of(error), traceback=trace)
        return replace(
            record,
            milliseconds=(time.perf_counter() - started) * 1000,
            heavy_modules=tuple(n for n in HEAVY_MODULES if n in sys.modules and n not in present),
        )

    def _register(self, record: PluginRecord) -> PluginRecord:
        module = _import_plugin(record.module)
        try:
            self._manager.register(module, f"{record.distribution}:{record.name} = {record.module}")
        except ValueError:  # pluggy raises this for an object that is already registered
            raise PluginError(f"{record.module} is already loaded by another entry point") from None
        try:
            callers = self._manager.get_hookcallers(module) or []
            implementations = [(c.name, i) for c in callers for i in c.get_hookimpls() if i.plugin is module]
            _check_hooks(module, implementations)
            record = _collect(record, dict(implementations))
            self._claim_names(record)
        except BaseException:
            self._manager.unregister(module)
            raise
        return record

    def _claim_names(self, record: PluginRecord) -> None:
        """Check that no plugin of the distribution has these names: `distribution:name` must be unambiguous."""
        names = [(c.kind, c.name) for c in record.components]
        names += [(f.family.kind, f.family.prefix) for f in record.families]
        for index, (kind, name) in enumerate(names):
            if (kind, name) in names[:index]:
                raise PluginError(f"{kind} '{name}' is registered twice")
            if (record.distribution, kind, name) in self._taken:
                raise PluginError(f"{kind} '{name}' is already registered by another plugin of {record.distribution}")
        self._taken.update((record.distribution, kind, name) for kind, name in names)


def _import_plugin(value: str) -> Any:
    """Import the value of an entry point: a module, or an object in it ("module:object")."""
    module_name, _, attributes = value.split("[")[0].strip().partition(":")
    found: Any = importlib.import_module(module_name.strip())
    for attribute in filter(None, attributes.strip().split(".")):
        found = getattr(found, attribute)
    return found


def _check_hooks(module: Any, implementations: Sequence[tuple[str, pluggy.HookImpl]]) -> None:
    """Check that a plugin implements known hooks, each once, and that no `@hookimpl` is missing."""
    names = [name for name, _ in implementations]
    for name, implementation in implementations:
        if name not in HOOKS:
            suggestion = did_you_mean(name, HOOKS)
            raise PluginError(f"unknown hook '{name}'{'.' if suggestion else ''}{suggestion}")
        if names.count(name) > 1:
            raise PluginError(f"hook '{name}' is implemented more than once")
        if implementation.wrapper or implementation.hookwrapper:
            raise PluginError(f"hook '{name}' is a hook wrapper, which fgvc does not support")
    for name in HOOKS:
        member = getattr(module, name, None)
        unmarked = isinstance(member, FunctionType) and not hasattr(member, f"{hookspecs.PROJECT}_spec")
        if unmarked and name not in names:
            raise PluginError(f"function '{name}' has no @hookimpl and would never be called")
    if not names:
        raise PluginError("no hook is implemented: nothing is marked with @hookimpl")


def _collect(record: PluginRecord, hooks: Mapping[str, pluggy.HookImpl]) -> PluginRecord:
    """Call the hooks that register something, and check what they return."""
    components: list[Component] = []
    families: list[RegisteredFamily] = []
    for kind in KINDS:
        if (hook := f"fgvc_{PLURALS[kind]}") in hooks:
            for spec in _items(hook, hooks[hook], SPEC_TYPES[kind]):
                check_spec(spec)
                components.append(Component(spec, record.origin))
    if (hook := "fgvc_families") in hooks:
        for family in _items(hook, hooks[hook], Family):
            _check_family(family)
            families.append(RegisteredFamily(family, record.origin))
    return replace(
        record,
        components=tuple(components),
        families=tuple(families),
        commands=_commands(hooks["fgvc_commands"]) if "fgvc_commands" in hooks else {},
        hooks={name: hooks[name] for name in RUN_EVENTS if name in hooks},
    )


def _items(hook: str, implementation: pluggy.HookImpl, wanted: type) -> list[Any]:
    """Call a hook and check that it returns specs of the right type."""
    returned: Any = implementation.function()
    if returned is None or isinstance(returned, str | bytes) or not isinstance(returned, Iterable):
        raise PluginError(f"{hook} returned {_shown(returned)} instead of a list of {wanted.__name__}")
    items = list(returned)
    for item in items:
        if not isinstance(item, wanted):
            raise PluginError(f"{hook} returned {_shown(item)} where a {wanted.__name__} is expected")
    return items


def _commands(implementation: pluggy.HookImpl) -> Mapping[str, Any]:
    """Call `fgvc_commands` and return the commands and groups that it adds, by name.

    Commands are built here rather than when the command line is parsed, so that a parameter of a type unknown to Typer
    fails now.
    """
    import typer  # not needed by programs that use fgvc as a library

    app = typer.Typer(add_completion=False)
    implementation.function(**({"app": app} if "app" in implementation.argnames else {}))
    if not (app.registered_commands or app.registered_groups):
        return {}
    commands: Mapping[str, Any] = typer.main.get_group(app).commands
    return commands


def check_spec(spec: ComponentSpec, *, family_member: bool = False) -> None:
    """Check a component's spec; the name of a family's member may have any form.

    Raises:
        PluginError: a field is invalid, or the spec is for another API version.
    """
    what = f"{spec.kind} {spec.name!r}"
    _check_common(what, spec)
    if not family_member and not NAME.fullmatch(spec.name):
        raise PluginError(f"{what}: a name consists of lower-case letters, digits, '.', '_', '-' and '+'")
    if spec.kind == "tracker" and "." in spec.name:
        raise PluginError(f"{what}: a tracker's name has no '.', because its options are tracker.NAME.OPTION")
    form, pattern = ("package:path.toml", FILE_TARGET) if spec.is_file else ("package.module:Name", TARGET)
    if not pattern.fullmatch(spec.target):
        raise PluginError(f"{what}: target {spec.target!r} does not have the form {form!r}")
    if spec.options and not TARGET.fullmatch(spec.options):
        raise PluginError(f"{what}: options {spec.options!r} do not have the form 'package.module:Name'")
    if spec.page and not PAGE.fullmatch(spec.page):
        raise PluginError(f"{what}: page {spec.page!r} does not have the form 'package:path.md'")
    if isinstance(spec, BackboneSpec):
        strides = spec.strides
        if not isinstance(strides, tuple) or not all(isinstance(s, int) and s > 0 for s in strides):
            raise PluginError(f"{what}: strides is {_shown(strides)}, not a tuple of positive integers")
    if isinstance(spec, HeadSpec) and not (isinstance(spec.maps, int) and spec.maps >= 0):
        raise PluginError(f"{what}: maps is {_shown(spec.maps)}, not a non-negative integer")
    if isinstance(spec, OptimizerSpec) and not (isinstance(spec.passes, int) and spec.passes >= 1):
        raise PluginError(f"{what}: passes is {_shown(spec.passes)}, not a positive integer")
    if isinstance(spec, ExporterSpec):
        _check_exporter(what, spec)


def _check_exporter(what: str, spec: ExporterSpec) -> None:
    if not SUFFIX.fullmatch(spec.suffix):
        raise PluginError(f"{what}: suffix is {_shown(spec.suffix)}, not one such as '.onnx'")
    precisions = spec.precisions
    if not isinstance(precisions, tuple) or not precisions or not set(precisions) <= set(PRECISIONS):
        raise PluginError(f"{what}: precisions is {_shown(precisions)}, not a tuple of {', '.join(PRECISIONS)}")


def _check_family(family: Family) -> None:
    what = f"family {family.prefix!r}"
    _check_common(what, family)
    if family.kind not in KINDS:
        raise PluginError(f"{what}: unknown kind of component {family.kind!r}")
    if not PREFIX.fullmatch(family.prefix):
        raise PluginError(f"{what}: a prefix is a lower-case name that ends in '/'")
    if not TARGET.fullmatch(family.resolver):
        raise PluginError(f"{what}: resolver {family.resolver!r} does not have the form 'package.module:function'")


def _check_common(what: str, record: ComponentSpec | Family) -> None:
    """Check the API version and that text fields are text."""
    api: Any = record.api
    if not isinstance(api, int) or api < 1:
        raise PluginError(f"{what}: API version is {api!r}, not a positive integer")
    if api != API_VERSION:
        fix = "upgrade fgvc-cli" if api > API_VERSION else "install a newer release of the plugin"
        raise PluginError(f"{what} needs plugin API version {api}, but this fgvc has version {API_VERSION}: {fix}")
    for item in fields(record):
        value = getattr(record, item.name)
        if item.type == "str" and not isinstance(value, str):
            raise PluginError(f"{what}: {item.name} is {_shown(value)}, not a string")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
