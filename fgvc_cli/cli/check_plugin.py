"""`fgvc check-plugin`: check that a plugin's components satisfy their contracts."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from fgvc_cli import settings
from fgvc_cli.cli import console
from fgvc_cli.cli.common_options import SEVERAL, plugins_and_components
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.formatting import counted
from fgvc_cli.options import parse_setting
from fgvc_cli.registry import get_registry
from fgvc_cli.registry.lookup import check_kind
from fgvc_cli.testing.check import Status
from fgvc_cli.testing.runner import FinishedCheck, count_by_status, plan_checks, select

STYLES: Mapping[Status, str] = {"passed": "green", "failed": "bold red", "advice": "yellow", "not applicable": "dim"}


def print_results(results: Sequence[FinishedCheck]) -> None:
    """Print each check with its result, the reasons of those that did not pass, and a summary."""
    from rich.text import Text

    table = console.table("component", "check", "result", whole=("component", "result"))
    for index, result in enumerate(results):
        what, status = result.planned.what, result.result.status
        first = index == 0 or results[index - 1].planned.what != what
        last = index == len(results) - 1 or results[index + 1].planned.what != what
        table.add_row(what if first else "", result.planned.check.title, Text(status, STYLES[status]), end_section=last)
    out = console.out()
    out.print(table)
    for status in ("not applicable", "advice", "failed"):
        _print_reasons(status, [result for result in results if result.result.status == status])
    out.print(f"\n{summary_line(results)}")


def results_document(name: str, results: Sequence[FinishedCheck]) -> dict[str, Any]:
    """Return what `fgvc check-plugin --json` prints."""
    return {
        "name": name,
        "passed": not count_by_status(results)["failed"],
        "counts": {status: count_by_status(results)[status] for status in STYLES},
        "checks": [
            {
                "kind": result.planned.kind,
                "name": result.planned.name,
                "check": result.planned.check.title,
                "about": result.planned.check.about,
                "advisory": result.planned.check.advisory,
                "result": result.result.status,
                "reason": result.result.reason,
                "trace": result.result.trace,
            }
            for result in results
        ],
    }


def print_traces(results: Sequence[FinishedCheck]) -> None:
    """Print the traceback of each failed check to standard error, each traceback once."""
    seen: set[str] = set()
    for result in results:
        planned, trace = result.planned, result.result.trace
        if trace and trace not in seen:
            seen.add(trace)
            sys.stderr.write(f"\n{planned.what}: {planned.check.title}\n{trace}")


def summary_line(results: Sequence[FinishedCheck]) -> str:
    """Return the number of checks by result."""
    counts = count_by_status(results)
    others = [f"{counts[status]} {status}" for status in ("failed", "advice", "not applicable") if counts[status]]
    return ", ".join([f"{counts['passed']} of {len(results)} checks passed", *others]) + "."


def failure_line(name: str, results: Sequence[FinishedCheck]) -> str:
    """Return the error that names the failed checks."""
    failed = [result for result in results if result.result.status == "failed"]
    first = failed[0].planned
    more = f", and {len(failed) - 1} more" if len(failed) > 1 else ""
    return f"{name} breaks its contract: {first.what}: {first.check.title}{more} (see the reasons above)"


def _print_reasons(status: Status, results: Sequence[FinishedCheck]) -> None:
    """Print the reasons of one status; those of checks that do not apply are grouped."""
    out = console.out()
    if status == "not applicable":
        for reason in dict.fromkeys(result.result.reason for result in results):
            same = [result for result in results if result.result.reason == reason]
            titles = same[0].planned.check.title if len(same) == 1 else f"{len(same)} checks"
            out.print(f"\nnot applicable: {titles}\n  {reason}", soft_wrap=True, style="dim")
        return
    for first, *same_cause in _by_cause(results):
        planned = first.planned
        text = f"{planned.what}: {planned.check.title}\n  {first.result.reason}\n  Why: {planned.check.about}"
        if same_cause:
            titles = "; ".join(other.planned.check.title for other in same_cause)
            text += f"\n  The same for {counted(len(same_cause), 'more check')}: {titles}"
        out.print(f"\n{status}: {text}", soft_wrap=True, style=STYLES[status])


def _by_cause(results: Sequence[FinishedCheck]) -> list[list[FinishedCheck]]:
    """Group the results of a component with the same cause: a constructor that raises fails nearly every check."""
    found: dict[tuple[str, str], list[FinishedCheck]] = {}
    for result in results:
        found.setdefault((result.planned.what, result.result.found), []).append(result)
    return list(found.values())


EXAMPLE = "fgvc check-plugin fgvc-bilinear --quick"


def check_plugin(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="Distribution, component, or distribution:component.",
            autocompletion=plugins_and_components,
            show_default=False,
        ),
    ],
    quick: Annotated[bool, typer.Option("--quick", help="Skip the checks with built-in partners.")] = False,
    only: Annotated[
        str, typer.Option(metavar="TEXT", help="Run only checks whose title contains this text.", show_default=False)
    ] = "",
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="SETTING",
            help=f"Option to check with, as kind.option=value. {SEVERAL}",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Folder or file for a dataset that reads one.", show_default="a small generated one"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Check that a plugin's components satisfy their contracts.

    Checks run on the CPU, with small partners and then with the built-in components. `fgvc_cli.testing.contract` runs
    the same checks in a plugin's own tests.
    """
    registry = get_registry()
    planned = plan_checks(select(name, registry), registry, _options(set_ or []), data, not quick, only)
    results: list[FinishedCheck] = []
    try:
        with console.progress(f"checking {name}", len(planned), "checks") as bar:
            for each in planned:
                bar.advance(0, f"{each.what}: {each.check.title}")
                results.append(each.run())
                bar.advance(1)
    except KeyboardInterrupt:
        if results and not as_json:
            print_results(results)
            console.note(f"interrupted after {len(results)} of {len(planned)} checks")
        raise
    console.print_json(results_document(name, results)) if as_json else print_results(results)
    if settings.current().debug:
        print_traces(results)
    if count_by_status(results)["failed"]:
        raise FgvcError(failure_line(name, results))


def _options(texts: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Parse `--set`: values by kind, or by "tracker.NAME"."""
    options: dict[str, dict[str, Any]] = {}
    for text in texts:
        kind, option, value = parse_setting(text)
        section: str = check_kind(kind)
        if section == "tracker":
            tracker, dot, option = option.partition(".")
            if not dot:
                raise UsageError(f"--set {text}: name the tracker, as in tracker.NAME.{tracker}")
            section = f"tracker.{tracker}"
        options.setdefault(section, {})[option] = value
    return options
