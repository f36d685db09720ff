"""`fgvc compare`: runs beside each other, or all of a study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fgvc_cli.commands import common_options as common

EXAMPLE = "fgvc compare runs/A runs/B runs/C --sort parameters"
RUNS, TABLE, RESULTS = "What is compared", "Table", "Results"


def compare(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN... | STUDY", help="Run folders, model files, folders of studies.")
    ],
    split: Annotated[str | None, common.split_option(RUNS, "compare on")] = None,
    sort: Annotated[
        str,
        typer.Option(metavar="top1|f1|parameters|minutes|speed|given", help="The best first.", rich_help_panel=TABLE),
    ] = "top1",
    group: Annotated[
        str, typer.Option(metavar="none|backbone|head|optimizer", help="Rows together.", rich_help_panel=TABLE)
    ] = "none",
    device: common.Device = "auto",
    precision: common.Precision = "auto",
    batch_size: common.BatchSize = 32,
    workers: common.Workers = -1,
    out: Annotated[
        Path | None,
        typer.Option(
            help="For the results.",
            show_default="comparison/ in a study, else a new one",
            rich_help_panel=RESULTS,
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Write into --out even if it exists.", rich_help_panel=RESULTS)
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.", rich_help_panel=RESULTS)] = False,
) -> None:
    """Set runs beside each other, and tell their differences from noise.

    A row has accuracy with its spread over seeds, size and time; runs that differ in nothing but the seed are one row.

    A run without an evaluation on that split is evaluated first.

    """
    from fgvc_cli.comparing import comparing
    from fgvc_cli.display import comparison_tables, console

    prepared = comparing.prepare(runs, out, force, sort, group)
    compared = comparing.run(prepared, split, comparing.evaluator(device, precision, batch_size, workers))
    if json:
        console.print_json(compared.comparison.as_json())
    else:
        comparison_tables.show_comparison(compared.comparison, sort, group)
        comparison_tables.show_places(compared.written, prepared.collected.study)
