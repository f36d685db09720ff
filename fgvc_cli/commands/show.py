"""`fgvc show`: one component, or the settings in force."""

from __future__ import annotations

from typing import Annotated

import typer

from fgvc_cli import settings
from fgvc_cli.commands.completion import kinds_and_settings, names_of_kind_given
from fgvc_cli.display import component_view, console
from fgvc_cli.errors import UsageError
from fgvc_cli.registry import get_registry
from fgvc_cli.registry.lookup import check_kind

EXAMPLE = "fgvc show head pim"


def show(
    kind: Annotated[str, typer.Argument(help="backbone, head, ..., or 'settings'.", autocompletion=kinds_and_settings)],
    name: Annotated[
        str | None,
        typer.Argument(
            help="The component, such as pim, fgvc-cli:pim or timm/resnet18.", autocompletion=names_of_kind_given
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Show one component's options, source and partners.

    `fgvc show settings` shows where runs, data and caches live and which plugins may load.
    """
    if kind == "settings":
        if name is not None:
            raise UsageError(f"fgvc show settings takes no name, and '{name}' was given.")
        document = component_view.settings_document(settings.current())
        console.print_json(document) if as_json else component_view.print_settings(document)
        return
    registry = get_registry()
    checked = check_kind(kind)
    if name is None:
        known = ", ".join(component.name for component in registry.components(checked)) or "none"
        raise UsageError(f"fgvc show {checked}: which one? Known: {known}.")
    document = component_view.component_details(registry, registry.find(checked, name))
    console.print_json(document) if as_json else component_view.print_component(document)
