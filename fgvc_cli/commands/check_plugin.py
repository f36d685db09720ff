"""`fgvc check-plugin`: whether a plugin's components keep their contracts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from fgvc_cli import settings
from fgvc_cli.commands.completion import plugins_and_components
from fgvc_cli.display import console
from fgvc_cli.display.contract_tables import (
    examination_document,
    failure_line,
    print_examination,
    print_traces,
)
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.options import parse_setting
from fgvc_cli.registry import get_registry
from fgvc_cli.registry.lookup import check_kind
from fgvc_cli.testing.choosing import choose
from fgvc_cli.testing.examining import Examination, Examined, Planned, counted

EXAMPLE = "fgvc check-plugin fgvc-bilinear --quick"


def check_plugin(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="A distribution, a component, or distribution:component.",
            autocompletion=plugins_and_components,
            show_default=False,
        ),
    ],
    quick: Annotated[bool, typer.Option("--quick", help="Leave out the checks with built-in partners.")] = False,
    only: Annotated[
        str, typer.Option(metavar="TEXT", help="Only the checks whose title has this text.", show_default=False)
    ] = "",
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="An option to check with, as kind.option=value. May be given several times.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="What a data set is made from that reads a folder or a file.", show_default="a small folder"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Check that a plugin's components keep their contracts.

    On the CPU, with small partners, and then with the built-in components. A plugin's own tests run the same checks by
    `fgvc_cli.testing.contract`.
    """
    registry = get_registry()
    examination = Examination(choose(name, registry), registry, _options(set_ or []), data, not quick, only)
    planned = examination.planned()
    results: list[Examined] = []
    try:
        _examine(name, planned, results)
    except KeyboardInterrupt:
        if results and not as_json:
            print_examination(results)
            console.note(f"interrupted after {len(results)} of {len(planned)} checks")
        raise
    console.print_json(examination_document(name, results)) if as_json else print_examination(results)
    if settings.current().debug:
        print_traces(results)
    if counted(results)["broken"]:
        raise FgvcError(failure_line(name, results))


def _examine(name: str, planned: Sequence[Planned], results: list[Examined]) -> None:
    """Run the checks one after the other, and put what comes of each into a list."""
    with console.progress(f"checking {name}", len(planned), "checks") as bar:
        for each in planned:
            bar.advance(0, f"{each.what}: {each.check.title}")
            results.append(each.examined())
            bar.advance(1)


def _options(texts: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Read what `--set` says: values by kind, those of trackers by "tracker.NAME"."""
    options: dict[str, dict[str, Any]] = {}
    for text in texts:
        kind, option, value = parse_setting(text)
        section: str = check_kind(kind)
        if section == "tracker":
            tracker, dot, option = option.partition(".")
            if not dot:
                raise UsageError(f"--set {text}: write whose option it is, as tracker.NAME.{tracker}.")
            section = f"tracker.{tracker}"
        options.setdefault(section, {})[option] = value
    return options
