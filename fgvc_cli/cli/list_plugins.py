"""`fgvc list-plugins`: list installed components."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import typer

from fgvc_cli import settings
from fgvc_cli.cli import console
from fgvc_cli.cli.common_options import kinds
from fgvc_cli.registry import Component, PluginRecord, Registry, get_registry
from fgvc_cli.registry.lookup import check_kind
from fgvc_cli.registry.records import Origin
from fgvc_cli.specs import KINDS, Kind


def print_plugins(registry: Registry, kinds: Sequence[Kind]) -> None:
    """Print the components of some kinds in one table, then the external plugins, failures and advice."""
    table = console.table("kind", "name", "description", "from", whole=("kind", "name"))
    for kind in kinds:
        rows = list(_rows(registry, kind))
        for index, (origin, *cells) in enumerate(rows):
            style = None if origin.builtin else "bold"
            last = index == len(rows) - 1
            table.add_row(kind if index == 0 else "", *cells, origin_text(origin), style=style, end_section=last)
        if not rows:
            table.add_row(kind, "none", "", "", end_section=True)
    out = console.out()
    out.print(table)
    _print_external([plugin for plugin in registry.plugins if not plugin.builtin])
    for line in _problems(registry.plugins):
        out.print(line, soft_wrap=True)


def print_tracebacks(plugins: Sequence[PluginRecord]) -> None:
    """Print the traceback of each plugin that failed to load to standard error."""
    for plugin in plugins:
        if plugin.traceback:
            sys.stderr.write(f"\n{plugin.failure}\n{plugin.traceback}")


def plugins_document(registry: Registry, kinds: Sequence[Kind]) -> dict[str, Any]:
    """Return what `fgvc list-plugins --json` prints: components and families by kind, and a record of each plugin."""
    return {
        "kinds": {
            kind: {
                "components": [component_document(component) for component in registry.components(kind)],
                "families": [
                    {"prefix": f.family.prefix, "summary": f.family.summary, **_origin_document(f.origin)}
                    for f in registry.families(kind)
                ],
                "clashes": {name: [c.reference for c in found] for name, found in registry.clashes(kind).items()},
            }
            for kind in kinds
        },
        "plugins": [_plugin_document(plugin) for plugin in registry.plugins],
    }


def component_document(component: Component) -> dict[str, Any]:
    """Return the JSON form of a component."""
    return {
        "name": component.name,
        "reference": component.reference,
        "summary": component.spec.summary,
        "source": component.spec.source,
        **_origin_document(component.origin),
    }


def origin_text(origin: Origin) -> str:
    """Return the distribution and version of a component, or "built in"."""
    return "built in" if origin.builtin else f"{origin.distribution} {origin.version}"


def _print_external(plugins: Sequence[PluginRecord]) -> None:
    """Print the state, load time and contents of external plugins."""
    if not plugins:
        return
    table = console.table("external plugin", "state", "load time", "adds", whole=["external plugin"])
    styles = {"failed": "red", "disabled": "dim"}
    for plugin in plugins:
        heavy = f" ({', '.join(plugin.heavy_modules)})" if plugin.heavy_modules else ""
        time = "" if plugin.status == "disabled" else f"{plugin.milliseconds:.0f} ms{heavy}"
        table.add_row(str(plugin.origin), plugin.status, time, _added(plugin), style=styles.get(plugin.status))
    console.out().print("")
    console.out().print(table)


def _added(plugin: PluginRecord) -> str:
    added = [f"{component.kind} {component.name}" for component in plugin.components]
    added += [f"{family.family.kind}s {family.pattern}" for family in plugin.families]
    added += [f"command {name}" for name in plugin.commands]
    added += ["hooks of every run"] if plugin.hooks else []
    return ", ".join(added)


def _rows(registry: Registry, kind: Kind) -> Iterator[tuple[Origin, str, str]]:
    clashes = registry.clashes(kind)
    for component in registry.components(kind):
        note = f"\n(name registered twice: use {component.reference})" if component.name in clashes else ""
        yield component.origin, component.name, component.spec.summary + note
    for family in registry.families(kind):
        yield family.origin, family.pattern, family.family.summary


def _problems(plugins: Sequence[PluginRecord]) -> Iterator[str]:
    """Return a line for each plugin that failed, is disabled, or is slow to load."""
    for plugin in plugins:
        if plugin.status == "failed":
            name = plugin.distribution
            fix = "reinstall fgvc" if plugin.builtin else f"pip uninstall {name}, or FGVC_DISABLE_PLUGINS={name}"
            yield f"\n{plugin.failure}\n  fix: {fix}"
        elif plugin.status == "disabled":
            yield f"\n{plugin.origin} is disabled ({plugin.cause}) and was not imported"
        if plugin.heavy_modules:
            yield (
                f"\n{plugin.origin} imports {', '.join(plugin.heavy_modules)} when it registers, which slows every "
                f"command by {plugin.milliseconds:.0f} ms; the plugin should import it only in the modules of its specs"
            )


def _plugin_document(plugin: PluginRecord) -> dict[str, Any]:
    return {
        "entry_point": plugin.name,
        "module": plugin.module,
        **_origin_document(plugin.origin),
        "status": plugin.status,
        "cause": plugin.cause,
        "milliseconds": round(plugin.milliseconds, 2),
        "heavy_modules": plugin.heavy_modules,
        "components": [f"{component.kind} {component.name}" for component in plugin.components],
        "families": [family.family.prefix for family in plugin.families],
        "commands": list(plugin.commands),
        "hooks": list(plugin.hooks),
    }


def _origin_document(origin: Origin) -> dict[str, Any]:
    return {"distribution": origin.distribution, "version": origin.version, "builtin": origin.builtin}


EXAMPLE = "fgvc list-plugins --kind head"


def list_plugins(
    kind: Annotated[
        str | None,
        typer.Option(metavar="KIND", help=f"Only this kind: {', '.join(KINDS)}.", autocompletion=kinds),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """List installed components by kind.

    External plugins follow, with those that failed to load, why, and how to fix them.
    """
    kinds = KINDS if kind is None else (check_kind(kind),)
    registry = get_registry()
    if as_json:
        console.print_json(plugins_document(registry, kinds))
    else:
        print_plugins(registry, kinds)
    if settings.current().debug:
        print_tracebacks(registry.plugins)
