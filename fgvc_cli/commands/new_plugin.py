"""`fgvc new-plugin`: writes a plugin package."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fgvc_cli.scaffolding.naming import SCAFFOLDED

EXAMPLE = "fgvc new-plugin gem-pool --kind head"


def _kinds(incomplete: str) -> list[str]:
    return [kind for kind in SCAFFOLDED if kind.startswith(incomplete)]


def new_plugin(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="What the component is to be called, with or without 'fgvc-' before it."),
    ],
    kind: Annotated[
        str | None,
        typer.Option(help=f"What it adds: {', '.join(SCAFFOLDED)}.", autocompletion=_kinds, show_default=False),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to make.", show_default="NAME in the current folder")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Write a plugin: a small, complete package to begin from.

    It installs, is listed, works and passes its own tests as it is written; change what it does from there.
    """
    from fgvc_cli.display import console
    from fgvc_cli.display.scaffold_view import scaffold_document, show_scaffold
    from fgvc_cli.registry import get_registry
    from fgvc_cli.scaffolding import plugin_names, refuse_taken, scaffold_kind, write_plugin
    from fgvc_cli.scaffolding.naming import taken_elsewhere

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
