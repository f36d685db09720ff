"""`fgvc show`: one component, or the settings of the program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Annotated, Any

import typer

from fgvc_cli import settings
from fgvc_cli.cli import console
from fgvc_cli.cli.common_options import kinds_and_settings, names_of_kind_given
from fgvc_cli.cli.list_plugins import component_document, origin_text
from fgvc_cli.errors import UsageError
from fgvc_cli.formatting import bytes_text
from fgvc_cli.options import describe, value_text
from fgvc_cli.registry import Component, Registry, get_registry
from fgvc_cli.registry.compatibility import partners
from fgvc_cli.registry.lookup import check_kind
from fgvc_cli.settings import Settings
from fgvc_cli.specs import KINDS, ComponentSpec, Kind

OWN_TEXT = {
    "strides": "strides of its feature maps",
    "pretrained": "pretrained weights",
    "maps": "feature maps needed",
    "distinct_strides": "of distinct strides",
    "passes": "evaluations per step",
    "base": "wraps",
    "baseline": "independent of the model",
    "reads_folder": "reads a folder (--data)",
    "reads_files": "reads files (--data)",
}
"""Labels of the fields that only one kind of spec has."""


def component_details(registry: Registry, component: Component) -> dict[str, Any]:
    """Return what `fgvc show KIND NAME --json` prints.

    Raises:
        FgvcError: the component's options, or a recipe's file, cannot be loaded.
    """
    spec = component.spec
    shared = {field.name for field in fields(ComponentSpec)}
    works_with = partners(registry, component)
    details = {
        "kind": component.kind,
        **component_document(component),
        "from": origin_text(component.origin),
        "target": spec.target,
        "api": spec.api,
        "properties": {f.name: getattr(spec, f.name) for f in fields(spec) if f.name not in shared},
        "options": [
            {"name": info.name, "type": info.type, "default": info.default, "help": info.help}
            for info in describe(component.options_type())
        ],
        "works_with": None if works_with is None else asdict(works_with),
        "page": component.page(),
    }
    return {**details, "toml": component.load()} if component.spec.is_file else details


def print_component(details: Mapping[str, Any]) -> None:
    """Print what `component_details` returns."""
    out = console.out()
    out.print(f"{details['kind']} {details['name']}", style="bold")
    facts = {"": details["summary"], "from": f"{details['from']} ({details['reference']})", "source": details["source"]}
    facts |= {
        OWN_TEXT.get(name, name): ", ".join(map(value_text, value if isinstance(value, tuple) else [value]))
        for name, value in details["properties"].items()
        if value
    }
    if base := details["properties"].get("base"):
        facts[OWN_TEXT["base"]] = f"{base} (--set optimizer.base=NAME, --set optimizer.base.OPTION=VALUE)"
    if details["works_with"] is not None:
        kind = details["works_with"]["kind"]
        facts |= {
            f"compatible {kind}s": ", ".join(details["works_with"]["names"]) or "none",
            f"incompatible {kind}s": ", ".join(details["works_with"]["unfit"]),
            "decided when built": ", ".join(details["works_with"]["open"]),
        }
    console.print_facts(facts)
    if details["options"]:
        where = f"tracker.{details['name']}" if details["kind"] == "tracker" else details["kind"]
        _print_options(where, details["options"])
    elif "toml" not in details:
        out.print("\nno options")
    if "toml" in details:
        out.print(f"\n{details['toml'].strip()}", soft_wrap=True)
    if details["page"]:
        from rich.markdown import Markdown

        out.print("")
        out.print(Markdown(details["page"]))


def settings_document(settings: Settings) -> dict[str, Any]:
    """Return what `fgvc show settings --json` prints: the value and source of each setting."""
    only = settings.only_plugins
    values: dict[str, Any] = {
        "runs": settings.runs.absolute(),
        "data_root": settings.data_root.absolute(),
        "weights_root": settings.weights_root.absolute(),
        "cache": settings.cache.absolute(),
        "cache_limit": settings.cache_limit,
        "disable_plugins": settings.disable_plugins,
        "only_plugins": only,
        "strict_plugins": settings.strict_plugins,
    }
    return {name: {"value": value, "from": settings.origin(name)} for name, value in values.items()}


def print_settings(document: Mapping[str, Any]) -> None:
    """Print what `settings_document` returns."""
    table = console.table("setting", "value", "from", whole=["setting"])
    for name, entry in document.items():
        empty = {"disable_plugins": "none", "only_plugins": "any"}.get(name, "")
        value = entry["value"]
        text = bytes_text(value) if name == "cache_limit" else ", ".join(value) if isinstance(value, tuple) else value
        table.add_row(name, empty if value in (None, ()) else value_text(text), entry["from"])
    console.out().print(table)


def _print_options(where: str, options: list[dict[str, Any]]) -> None:
    name = f"--set {where}."
    table = console.table(name, "type", "default", "description", whole=[name])
    for info in options:
        table.add_row(info["name"], info["type"], value_text(info["default"]), info["help"])
    console.out().print("")
    console.out().print(table)


def _knows(registry: Registry, kind: Kind, name: str) -> bool:
    return any(name in (component.name, component.reference) for component in registry.components(kind))


EXAMPLE = "fgvc show head pim"


def show(
    kind: Annotated[str, typer.Argument(help=f"{', '.join(KINDS)}, or settings.", autocompletion=kinds_and_settings)],
    name: Annotated[
        str | None,
        typer.Argument(
            help="Component, such as pim, fgvc-cli:pim or timm/resnet18.", autocompletion=names_of_kind_given
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Show a component's options, source and partners.

    `fgvc show settings` shows the folders of runs, data and caches, and which plugins may load.
    """
    if kind == "settings":
        if name is not None:
            raise UsageError(f"fgvc show settings takes no name, got '{name}'")
        document = settings_document(settings.current())
        console.print_json(document) if as_json else print_settings(document)
        return
    registry = get_registry()
    if kind not in KINDS and (named := [each for each in KINDS if _knows(registry, each, kind)]):
        raise UsageError(f"'{kind}' is a {named[0]}: fgvc show {named[0]} {kind}")
    checked = check_kind(kind)
    if name is None:
        known = ", ".join(component.name for component in registry.components(checked)) or "none"
        raise UsageError(f"fgvc show {checked} needs a name: {known}")
    document = component_details(registry, registry.find(checked, name))
    console.print_json(document) if as_json else print_component(document)
