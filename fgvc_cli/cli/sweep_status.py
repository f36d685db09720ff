"""`fgvc sweep status`: which runs of a study are done, running, failed or waiting."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from fgvc_cli.experiments.status import RunStatus

EXAMPLE = "fgvc sweep status runs/20260101-120000-study-demo"


def status(
    study: Annotated[Path, typer.Argument(help="Folder of the study.", show_default=False)],
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Show which runs of a study are done, running where and since when, failed or waiting.

    Reads the study folder alone, from any machine that sees it.

    """
    from fgvc_cli.cli import console
    from fgvc_cli.cli.tables import figure_table
    from fgvc_cli.experiments.status import study_status
    from fgvc_cli.registry import get_registry

    found = study_status(study, get_registry())
    if json:
        console.print_json(found.as_json())
        return
    table = figure_table("run", "state", "where", "since", "progress")
    for run in found.runs:
        table.add_row(run.run, run.state, *_details(run))
    console.out().print(table)
    console.out().print(f"{len(found.runs)} runs: " + ", ".join(f"{n} {state}" for state, n in found.counts.items()))


def _details(run: RunStatus) -> tuple[str, str, str]:
    """Return where a run is trained, since when, and how far it is."""
    from fgvc_cli.formatting import duration_text

    where = f"{run.host} ({run.process})" if run.host else ""
    since = "" if run.since is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(run.since))
    silent = f", silent for {duration_text(run.silent)}" if run.state == "lost" and run.silent is not None else ""
    return where, since, run.text + silent
