"""Checks of a plugin as a whole. Free of torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import PurePosixPath
from typing import Any

from fgvc_cli.registry import PluginRecord, RegisteredFamily, Registry
from fgvc_cli.registry.records import BUILTIN_DISTRIBUTION, import_name, normalized
from fgvc_cli.testing.check import Checks, ContractBroken, NotApplicable, expect, some
from fgvc_cli.testing.spec import expect_no_such_member, register_alone


@dataclass(frozen=True)
class PluginSubject:
    """A plugin, and the registry that knows the others."""

    plugin: PluginRecord
    registry: Registry

    def loaded(self) -> PluginRecord:
        """Return the plugin if it could be loaded; `NotApplicable` if not: that is another check's."""
        if self.plugin.status != "loaded":
            raise NotApplicable("it failed to load")
        return self.plugin


PLUGIN: Checks[PluginSubject] = Checks()

REQUIRED = re.compile(r"[\w.-]+")
"""The distribution at the beginning of a requirement, such as "fgvc-cli>=0.2"."""


@PLUGIN("it loads", "A plugin that fails to load is left out as a whole.")
def loads(subject: PluginSubject) -> None:
    """It is imported, and what it registers is what the hooks ask for."""
    plugin = subject.plugin
    if plugin.status != "loaded":
        mend = "mend it; --debug shows where it failed"
        raise ContractBroken(f"{plugin.module} to load", plugin.cause, mend, plugin.traceback)


@PLUGIN("it registers something", "A plugin without components, families, commands or run events does nothing.")
def registers(subject: PluginSubject) -> None:
    """Some hook gives something."""
    plugin = subject.loaded()
    gives = bool(plugin.components or plugin.families or plugin.commands or plugin.hooks)
    expect(
        gives, "something to be registered", f"the hooks of {plugin.module} return nothing", "return specs from them"
    )


@PLUGIN("its packages are its own", "A package with the name of a built-in one would take its place on the disk.")
def packages(subject: PluginSubject) -> None:
    """The distribution ships no package that comes with fgvc itself."""
    if subject.plugin.builtin:
        raise NotApplicable("it comes with fgvc itself")
    taken = sorted(_shipped(subject.plugin) & _reserved(subject.registry))
    expect(
        not taken,
        "packages with names of their own",
        f"{subject.plugin.origin} ships {', '.join(taken)}, as {BUILTIN_DISTRIBUTION} does",
        "rename the package: installed, it overwrites the built-in one",
    )


@PLUGIN("it registers without torch", "Every command loads every plugin: `fgvc --help` must not wait for torch.")
def light(subject: PluginSubject) -> None:
    """Importing it and calling its hooks needs none of the heavy modules."""
    plugin = subject.loaded()
    alone = register_alone(plugin.distribution, plugin.name, plugin.module, plugin.version)
    expect(
        not alone.cause,
        f"{plugin.module} to register without torch, timm and torchvision",
        alone.cause,
        "import torch only in the modules that targets name, which the package's __init__ must not import",
    )


@PLUGIN("its families answer", "A resolver is asked for every name that begins with the family's prefix.")
def families(subject: PluginSubject) -> None:
    """Each resolver is there and has no answer for a name that cannot be; its prefix is its own."""
    plugin = subject.loaded()
    if not plugin.families:
        raise NotApplicable("it has no families of names")
    for registered in plugin.families:
        _expect_own_prefix(registered, subject.registry)
        resolver = registered.family.resolver
        try:
            import_name(resolver)
        except Exception as error:
            raise ContractBroken(
                f"{resolver} to be there", f"{type(error).__name__}: {error}", "correct the resolver"
            ) from error
        expect_no_such_member(resolver, registered.family.prefix)


@PLUGIN("its run events hear a training", "One that raises is warned of once, and misses something of the training.")
def events(subject: PluginSubject) -> None:
    """Told of the start, of epochs with and without validation, and of the end, they raise nothing."""
    plugin = subject.loaded()
    if not plugin.hooks:
        raise NotApplicable("it listens to no run")
    from fgvc_cli.testing.tiny import metrics_of, summary_of, training_about_to_start

    with training_about_to_start() as run:
        _tell(plugin, "fgvc_run_started", run=run)
        _tell(plugin, "fgvc_epoch_finished", run=run, metrics=metrics_of(1))
        _tell(plugin, "fgvc_epoch_finished", run=run, metrics={**metrics_of(2), "val": None})
        _tell(plugin, "fgvc_run_finished", run=run, summary=summary_of())
        _tell(plugin, "fgvc_run_finished", run=run, summary={**summary_of(), "val": None, "test": None})


@PLUGIN("its commands say what they do", "`fgvc --help` shows a line for each.", advisory=True)
def commands(subject: PluginSubject) -> None:
    """Every subcommand and group has a help text."""
    plugin = subject.loaded()
    if not plugin.commands:
        raise NotApplicable("it adds no command")
    silent = [name for name, command in plugin.commands.items() if not (command.help or command.short_help)]
    found = f"{some(silent)} {'has' if len(silent) == 1 else 'have'} none"
    expect(not silent, "a help text for every command", found, "write a docstring, which becomes its help")


@PLUGIN("it asks for fgvc-cli", "pip then installs a host for it, and warns of one that is too old.", advisory=True)
def requires(subject: PluginSubject) -> None:
    """Its metadata has the host among its dependencies."""
    if subject.plugin.builtin:
        raise NotApplicable("it comes with fgvc itself")
    needed = distribution(subject.plugin.distribution).requires or []
    names = {normalized(match.group()) for line in needed if (match := REQUIRED.match(line))}
    expect(
        BUILTIN_DISTRIBUTION in names,
        f"{BUILTIN_DISTRIBUTION} among the dependencies of {subject.plugin.distribution}",
        f"they are {', '.join(sorted(names)) or 'none'}",
        f'write dependencies = ["{BUILTIN_DISTRIBUTION}"] in its pyproject.toml',
    )


def _tell(plugin: PluginRecord, hook: str, **arguments: Any) -> None:
    """Call a run event as the host does, if the plugin implements it."""
    if hook in plugin.hooks:
        implementation = plugin.hooks[hook]
        implementation.function(**{name: arguments[name] for name in implementation.argnames})


def _expect_own_prefix(registered: RegisteredFamily, registry: Registry) -> None:
    prefix = registered.family.prefix
    alike = [family.origin for family in registry.families(registered.family.kind) if family.family.prefix == prefix]
    others = [str(origin) for origin in alike if origin != registered.origin]
    found = f"{some(others)} {'has' if len(others) == 1 else 'have'} it too"
    expect(not others, f"a prefix {prefix!r} of its own", found, "choose another")


def _shipped(plugin: PluginRecord) -> set[str]:
    """Name the top-level packages and modules that a distribution installs."""
    found = {plugin.module.partition(":")[0].partition(".")[0]}
    try:
        files = distribution(plugin.distribution).files or []
    except PackageNotFoundError:
        return found
    for file in files:
        path = PurePosixPath(file)
        if path.suffix == ".py" and ".." not in path.parts:
            found.add(path.parts[0].removesuffix(".py"))
    return found


def _reserved(registry: Registry) -> set[str]:
    """Name the packages that come with fgvc itself."""
    own = {p.module.partition(":")[0].partition(".")[0] for p in registry.plugins if p.builtin}
    return {__name__.partition(".")[0], *own}
