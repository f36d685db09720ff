"""`fgvc list-plugins`: what is installed."""

from __future__ import annotations

from typing import Annotated

import typer

from fgvc_cli import settings
from fgvc_cli.commands.completion import kinds_and_settings
from fgvc_cli.display import console
from fgvc_cli.display.plugin_tables import plugins_document, print_plugins, print_tracebacks
from fgvc_cli.registry import get_registry
from fgvc_cli.registry.lookup import check_kind
from fgvc_cli.specs import KINDS

EXAMPLE = "fgvc list-plugins --kind head"


def list_plugins(
    kind: Annotated[
        str | None,
        typer.Option(help=f"Only this kind: {', '.join(KINDS)}.", autocompletion=kinds_and_settings),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """List what is installed, by kind.

    Each component with where it is from, and below them the plugins that failed to load, why, and how to mend it.
    """
    kinds = KINDS if kind is None else (check_kind(kind),)
    registry = get_registry()
    if as_json:
        console.print_json(plugins_document(registry, kinds))
    else:
        print_plugins(registry, kinds)
    if settings.current().debug:
        print_tracebacks(registry.plugins)
