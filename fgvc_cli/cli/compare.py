"""`fgvc compare`: compare runs and test differences for significance."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from fgvc_cli.cli import common_options as common
from fgvc_cli.cli.console import out
from fgvc_cli.cli.tables import Column, print_sections
from fgvc_cli.experiments.comparison import Comparison, Section, groups_of, in_order
from fgvc_cli.experiments.text import (
    behind_text,
    images_text,
    meanings,
    minutes_text,
    parameters_text,
    seeds_text,
    settings_text,
    share_text,
    speed_text,
)
from fgvc_cli.formatting import quoted


def show_comparison(comparison: Comparison, sort: str, group: str) -> None:
    """Print the tables.

    Args:
        comparison: the rows.
        sort: what they are sorted by (`comparison.SORTS`).
        group: what they are grouped by (`comparison.GROUPS`).
    """
    console = out()
    if len(comparison.sections) > 1:
        console.print(
            "These runs were scored on different images: each table stands for itself, and nothing is ranked across "
            "them.\n",
            soft_wrap=True,
        )
    for section in comparison.sections:
        _show_section(section, sort, group)
        console.print()
    for failed in comparison.failed:
        title = f"{failed.backbone} + {failed.head} + {failed.optimizer}, seed {failed.seed}"
        console.print(f"failed: {title}: {failed.reason}", style="red", soft_wrap=True)
    if comparison.unfinished:
        console.print(f"not finished: {', '.join(comparison.unfinished)}", soft_wrap=True)


def show_places(written: Sequence[Path], study: Path | None) -> None:
    """Print where the files are, and what to try next."""
    console = out()
    if written:
        here = quoted(str(written[0].parent))
        console.print(f"written: {here}/ ({', '.join(path.name for path in written)})", soft_wrap=True)
    if study is not None:
        console.print(f"next: fgvc report {quoted(str(study))}", soft_wrap=True)


def _show_section(section: Section, sort: str, group: str) -> None:
    console = out()
    console.print(f"{images_text(section)}\n", soft_wrap=True)
    order = in_order(section.rows, sort)
    rows = [section.rows[place] for place in order]
    groups = groups_of(rows, group)
    several = len(rows) > 1
    columns = [
        Column("top-1", [share_text(row.top1) for row in rows]),
        Column("behind", [behind_text(section, place) for place in order]),
        Column("alike", [section.letters[place] if several else "" for place in order], words=True),
        Column("macro F1", [share_text(row.macro_f1) for row in rows]),
        Column("parameters", [parameters_text(row) for row in rows]),
        Column("minutes", [minutes_text(row) for row in rows]),
        Column("images/s", [speed_text(row) for row in rows]),
        Column("seeds", [seeds_text(row) for row in rows]),
        Column("settings", [settings_text(section, place) for place in order], words=True),
    ]
    print_sections("backbone + head + optimizer", [row.title for row in rows], groups, columns)
    console.print()
    for line in (*section.notes, *meanings(section)):
        console.print(line, style="dim", soft_wrap=True)


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
    from fgvc_cli.cli import console
    from fgvc_cli.experiments import compare as comparing

    prepared = comparing.prepare(runs, out, force, sort, group)
    compared = comparing.run(prepared, split, comparing.evaluator(device, precision, batch_size, workers))
    if json:
        console.print_json(compared.comparison.as_json())
    else:
        show_comparison(compared.comparison, sort, group)
        show_places(compared.written, prepared.collected.study)
