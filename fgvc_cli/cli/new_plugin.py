"""`fgvc new-plugin`: write a plugin package."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from fgvc_cli.cli import console
from fgvc_cli.testing.scaffolding import Scaffold
from fgvc_cli.testing.scaffolding.names import SCAFFOLDED


def show_scaffold(scaffold: Scaffold) -> None:
    """Print the written files and the commands to run next."""
    names, out = scaffold.names, console.out()
    out.print(f"written: {scaffold.folder}, the plugin {names.distribution} with the {names.kind} '{names.component}'")
    for file in scaffold.files:
        out.print(f"  {file}", soft_wrap=True)
    for index, command in enumerate(_next_commands(scaffold)):
        out.print(f"{'' if index else 'next: ':6}{command}", soft_wrap=True)


def scaffold_document(scaffold: Scaffold) -> dict[str, Any]:
    """Return what `fgvc new-plugin --json` prints."""
    names = scaffold.names
    return {
        "kind": names.kind,
        "name": names.component,
        "distribution": names.distribution,
        "package": names.package,
        "folder": scaffold.folder,
        "files": scaffold.files,
        "next": _next_commands(scaffold),
    }


def _next_commands(scaffold: Scaffold) -> list[str]:
    return [f"cd {shlex.quote(str(scaffold.folder))}", *scaffold.commands]


EXAMPLE = "fgvc new-plugin gem-pool --kind head"


def _kinds(incomplete: str) -> list[str]:
    return [kind for kind in SCAFFOLDED if kind.startswith(incomplete)]


def new_plugin(
    name: Annotated[
        str,
        typer.Argument(help="Name of the component, with or without the prefix 'fgvc-'."),
    ],
    kind: Annotated[
        str | None,
        typer.Option(
            metavar="KIND",
            help=f"Kind of the component: {', '.join(SCAFFOLDED)}.",
            autocompletion=_kinds,
            show_default=False,
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to create.", show_default="NAME")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Create a small, complete plugin package.

    The package installs, runs and passes its own tests as it is; change the component from there.
    """
    from fgvc_cli.registry import get_registry
    from fgvc_cli.testing.scaffolding import plugin_names, refuse_taken, scaffold_kind, write_plugin
    from fgvc_cli.testing.scaffolding.names import taken_elsewhere

    names = plugin_names(name, scaffold_kind(kind))
    registry = get_registry()
    refuse_taken(names, registry)
    if clash := taken_elsewhere(names, registry):
        console.note(clash)
    scaffold = write_plugin(names, out if out is not None else Path(name))
    if json:
        console.print_json(scaffold_document(scaffold))
    else:
        show_scaffold(scaffold)
