"""What came of a plugin's checks, as a table and as JSON."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from fgvc_cli.display import console
from fgvc_cli.testing.check import Status
from fgvc_cli.testing.examining import Examined, counted

STYLES: Mapping[Status, str] = {"kept": "green", "broken": "bold red", "advice": "yellow", "not applicable": "dim"}


def print_examination(results: Sequence[Examined]) -> None:
    """Print each check and its result, then the reason of each that was not kept, and how many there are."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("what", no_wrap=True)
    table.add_column("check", overflow="fold")
    table.add_column("result", no_wrap=True)
    for index, result in enumerate(results):
        what, status = result.planned.what, result.outcome.status
        first = index == 0 or results[index - 1].planned.what != what
        last = index == len(results) - 1 or results[index + 1].planned.what != what
        table.add_row(what if first else "", result.planned.check.title, _styled(status), end_section=last)
    out = console.out()
    out.print(table)
    for status in ("not applicable", "advice", "broken"):
        _print_reasons(status, [result for result in results if result.outcome.status == status])
    out.print(f"\n{summary_line(results)}")


def examination_document(name: str, results: Sequence[Examined]) -> dict[str, Any]:
    """Return what `fgvc check-plugin --json` prints."""
    return {
        "name": name,
        "kept": not counted(results)["broken"],
        "counts": {status: counted(results)[status] for status in STYLES},
        "checks": [
            {
                "kind": result.planned.kind,
                "name": result.planned.name,
                "check": result.planned.check.title,
                "about": result.planned.check.about,
                "advisory": result.planned.check.advisory,
                "result": result.outcome.status,
                "reason": result.outcome.reason,
                "trace": result.outcome.trace,
            }
            for result in results
        ],
    }


def print_traces(results: Sequence[Examined]) -> None:
    """Print, to standard error, where each broken check's component raised; a trace that is known is not repeated."""
    seen: set[str] = set()
    for result in results:
        planned, trace = result.planned, result.outcome.trace
        if trace and trace not in seen:
            seen.add(trace)
            sys.stderr.write(f"\n{planned.what}: {planned.check.title}\n{trace}")


def summary_line(results: Sequence[Examined]) -> str:
    """Say how many checks were kept, broken and so on."""
    counts = counted(results)
    others = [f"{counts[status]} {status}" for status in ("broken", "advice", "not applicable") if counts[status]]
    return ", ".join([f"{counts['kept']} of {len(results)} checks kept", *others]) + "."


def failure_line(name: str, results: Sequence[Examined]) -> str:
    """Say, for standard error, which checks are broken."""
    broken = [result for result in results if result.outcome.status == "broken"]
    first = broken[0].planned
    more = f", and {len(broken) - 1} more" if len(broken) > 1 else ""
    return f"{name} does not keep its contract: {first.what}: {first.check.title}{more}. The reasons are above."


def _print_reasons(status: Status, results: Sequence[Examined]) -> None:
    """Print why; what does not apply for one reason is told once, for it is nobody's fault."""
    out = console.out()
    if status == "not applicable":
        for reason in dict.fromkeys(result.outcome.reason for result in results):
            same = [result for result in results if result.outcome.reason == reason]
            titles = same[0].planned.check.title if len(same) == 1 else f"{len(same)} checks"
            out.print(f"\nnot applicable: {titles}\n  {reason}", soft_wrap=True, style="dim")
        return
    for first, *alike in _by_cause(results):
        planned = first.planned
        text = f"{planned.what}: {planned.check.title}\n  {first.outcome.reason}\n  Why: {planned.check.about}"
        if alike:
            text += f"\n  So it is with {len(alike)} more: {'; '.join(other.planned.check.title for other in alike)}"
        out.print(f"\n{status}: {text}", soft_wrap=True, style=STYLES[status])


def _by_cause(results: Sequence[Examined]) -> list[list[Examined]]:
    """Put together those of one component that found the same: a constructor that raises fails nearly every check."""
    found: dict[tuple[str, str], list[Examined]] = {}
    for result in results:
        found.setdefault((result.planned.what, result.outcome.found), []).append(result)
    return list(found.values())


def _styled(status: Status) -> Any:
    from rich.text import Text

    return Text(status, STYLES[status])
