"""Contract checks of a plugin as a whole. Free of torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import PurePosixPath
from typing import Any

from fgvc_cli.errors import cause_of
from fgvc_cli.registry import PluginRecord, Registry
from fgvc_cli.registry.records import BUILTIN_DISTRIBUTION, import_name, normalized
from fgvc_cli.testing.check import Checks, ContractError, NotApplicable, expect, some
from fgvc_cli.testing.component import NO_TORCH, expect_no_such_member, expect_registers_without_torch


@dataclass(frozen=True)
class PluginUnderTest:
    """A plugin under test, and the registry with all others."""

    plugin: PluginRecord
    registry: Registry

    def loaded(self) -> PluginRecord:
        """Return the plugin.

        Raises:
            NotApplicable: it could not be loaded, which another check reports.
        """
        if self.plugin.status != "loaded":
            raise NotApplicable("it failed to load")
        return self.plugin


PLUGIN: Checks[PluginUnderTest] = Checks(lambda plugin: plugin)


@PLUGIN("loads", "A plugin that fails to load is left out as a whole.")
def loads(subject: PluginUnderTest) -> None:
    """The plugin can be imported, and its hooks return what they should."""
    plugin = subject.plugin
    if plugin.status != "loaded":
        raise ContractError(f"{plugin.module} to load", plugin.cause, "see the traceback", plugin.traceback)


@PLUGIN("registers something", "A plugin without components, families, commands or run events has no effect.")
def registers(subject: PluginUnderTest) -> None:
    """At least one hook registers something."""
    plugin = subject.loaded()
    something = bool(plugin.components or plugin.families or plugin.commands or plugin.hooks)
    expect(something, "something registered", f"the hooks of {plugin.module} return nothing", "return specs from them")


@PLUGIN("uses its own package names", "A package with the name of a built-in one overwrites it when installed.")
def packages(subject: PluginUnderTest) -> None:
    """The distribution ships no package with the name of a built-in one."""
    if subject.plugin.builtin:
        raise NotApplicable("it is built in")
    builtin = {_top_level(plugin.module) for plugin in subject.registry.plugins if plugin.builtin}
    taken = sorted(_shipped(subject.plugin) & {"fgvc_cli", *builtin})
    expect(
        not taken,
        "package names that fgvc does not use",
        f"{subject.plugin.origin} ships {', '.join(taken)}, as {BUILTIN_DISTRIBUTION} does",
        "rename the package, which would overwrite the built-in one",
    )


@PLUGIN("registers without importing torch", NO_TORCH)
def light(subject: PluginUnderTest) -> None:
    """Importing the plugin and calling its hooks imports no heavy module."""
    expect_registers_without_torch(subject.loaded())


@PLUGIN("family resolvers handle unknown names", "A resolver is called for every name with the family's prefix.")
def families(subject: PluginUnderTest) -> None:
    """Each prefix is unique, and each resolver can be imported and returns None for an impossible name."""
    plugin = subject.loaded()
    if not plugin.families:
        raise NotApplicable("it has no families of names")
    for registered in plugin.families:
        family = registered.family
        same = [f.origin for f in subject.registry.families(family.kind) if f.family.prefix == family.prefix]
        others = [str(origin) for origin in same if origin != registered.origin]
        found = f"{some(others)} {'has' if len(others) == 1 else 'have'} it too"
        expect(not others, f"a unique prefix, not {family.prefix!r}", found, "choose another")
        try:
            import_name(family.resolver)
        except Exception as error:
            raise ContractError(
                f"{family.resolver} to be importable", cause_of(error), "correct the resolver"
            ) from error
        expect_no_such_member(family.resolver, family.prefix)


@PLUGIN("run events accept a training run", "If one raises, fgvc warns once, and the plugin misses that event.")
def events(subject: PluginUnderTest) -> None:
    """Run events handle the start, epochs with and without validation, and the end of a run."""
    plugin = subject.loaded()
    if not plugin.hooks:
        raise NotApplicable("it implements no run events")
    from fgvc_cli.testing.tracker import metrics_of, summary_of, tiny_run

    def call(hook: str, **arguments: Any) -> None:
        if hook in plugin.hooks:
            implementation = plugin.hooks[hook]
            implementation.function(**{name: arguments[name] for name in implementation.argnames})

    with tiny_run() as run:
        call("fgvc_run_started", run=run)
        call("fgvc_epoch_finished", run=run, metrics=metrics_of(1))
        call("fgvc_epoch_finished", run=run, metrics={**metrics_of(2), "val": None})
        call("fgvc_run_finished", run=run, summary=summary_of())
        call("fgvc_run_finished", run=run, summary={**summary_of(), "val": None, "test": None})


@PLUGIN("commands have help texts", "The help of `fgvc` shows a line for each.", advisory=True)
def commands(subject: PluginUnderTest) -> None:
    """Every subcommand and group has a help text."""
    plugin = subject.loaded()
    if not plugin.commands:
        raise NotApplicable("it adds no command")
    without = [name for name, command in plugin.commands.items() if not (command.help or command.short_help)]
    found = f"{some(without)} {'has' if len(without) == 1 else 'have'} none"
    expect(not without, "a help text for every command", found, "write a docstring, which becomes the help text")


@PLUGIN("depends on fgvc-cli", "pip then installs fgvc with it, and warns if the version is too old.", advisory=True)
def requires(subject: PluginUnderTest) -> None:
    """The distribution's metadata lists fgvc-cli as a dependency."""
    if subject.plugin.builtin:
        raise NotApplicable("it is built in")
    required = distribution(subject.plugin.distribution).requires or []
    names = {normalized(match.group()) for line in required if (match := re.match(r"[\w.-]+", line))}
    expect(
        BUILTIN_DISTRIBUTION in names,
        f"{BUILTIN_DISTRIBUTION} among the dependencies of {subject.plugin.distribution}",
        f"they are {', '.join(sorted(names)) or 'none'}",
        f'write dependencies = ["{BUILTIN_DISTRIBUTION}"] in its pyproject.toml',
    )


def _top_level(module: str) -> str:
    return module.partition(":")[0].partition(".")[0]


def _shipped(plugin: PluginRecord) -> set[str]:
    """Return the top-level packages and modules that a distribution installs."""
    found = {_top_level(plugin.module)}
    try:
        files = distribution(plugin.distribution).files or []
    except PackageNotFoundError:
        return found
    paths = [PurePosixPath(file) for file in files]
    return found | {p.parts[0].removesuffix(".py") for p in paths if p.suffix == ".py" and ".." not in p.parts}
