"""`fgvc compare`: compare runs and test their differences for significance."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fgvc_cli.cli import common_options as common
from fgvc_cli.cli import console
from fgvc_cli.cli.common_options import option
from fgvc_cli.cli.tables import Column, print_sections
from fgvc_cli.formatting import quoted

if TYPE_CHECKING:
    from fgvc_cli.experiments.comparison import Comparison, ComparisonTable

WORDS = ("group", "settings")
"""Columns of text rather than figures."""


def show_comparison(comparison: Comparison, sort: str = "top1", group: str = "none") -> None:
    """Print the tables, with rows sorted by one of `comparison.SORTS` and grouped by one of `comparison.GROUPS`."""
    out = console.out()
    if len(comparison.tables) > 1:
        out.print(_why_several(comparison), soft_wrap=True)
        for note in comparison.notes:
            out.print(note, soft_wrap=True)
        out.print()
    for table in comparison.tables:
        _show_table(table, sort, group)
        out.print()
    for failed in comparison.failed:
        out.print(f"failed: {failed.title}: {failed.reason}", style="red", soft_wrap=True)
    if comparison.unfinished:
        out.print(f"not finished: {', '.join(comparison.unfinished)}", soft_wrap=True)


def _why_several(comparison: Comparison) -> str:
    """Return why there is more than one table."""
    why = {
        "images": "These runs were evaluated on different images",
        "classes": "These runs know different classes, so that their figures on the same images differ in difficulty",
        "": "These runs were trained on different data",
    }[comparison.evaluated_on]
    if comparison.notes:  # of runs with the same classes, evaluated on the same images
        why += ", or trained on different data" * bool(comparison.evaluated_on)
        return (
            f"{why}; compare rows only within a table. "
            "(--allow-changed-data: one table for runs that were trained on different data.)"
        )
    return f"{why}; compare rows only within a table."


def show_files(written: Sequence[Path], study: Path | None) -> None:
    """Print where the files are, and a command to continue with."""
    folder = quoted(str(written[0].parent))
    console.out().print(f"written: {folder}/ ({', '.join(path.name for path in written)})", soft_wrap=True)
    if study is not None:
        console.out().print(f"next: fgvc report {quoted(str(study))}", soft_wrap=True)


def _show_table(table: ComparisonTable, sort: str, group: str) -> None:
    from fgvc_cli.experiments.comparison import groups_of, in_order
    from fgvc_cli.experiments.text import cells, images_text, notes

    out = console.out()
    out.print(f"{images_text(table)}\n", soft_wrap=True)
    order = in_order(table.rows, sort)
    rows = [table.rows[i] for i in order]
    texts = [cells(table, i) for i in order]
    columns = [Column(name, [text[name] for text in texts], words=name in WORDS) for name in texts[0]]
    print_sections("backbone + head + optimizer", [row.title for row in rows], groups_of(rows, group), columns)
    out.print()
    for line in notes(table):
        out.print(line, style="dim", soft_wrap=True)


EXAMPLE = "fgvc compare runs/A runs/B runs/C --sort parameters"
RUNS, TABLE, RESULTS = "Runs", "Table", "Results"


def compare(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN... | STUDY", help="Run folders, model files or study folders.")
    ],
    split: Annotated[str | None, common.split_option(RUNS, "compare on")] = None,
    allow_changed_data: Annotated[
        bool,
        common.allow_changed_data_option(RUNS, "Rank runs that were trained on different images in one table."),
    ] = False,
    sort: Annotated[
        str, option(TABLE, "Sort order of the rows, best first.", metavar="top1|f1|parameters|minutes|speed|given")
    ] = "top1",
    group: Annotated[str, option(TABLE, "Group rows by component.", metavar="none|backbone|head|optimizer")] = "none",
    device: common.Device = "auto",
    precision: common.Precision = "auto",
    batch_size: common.BatchSize = 32,
    workers: common.Workers = -1,
    out: Annotated[
        Path | None, option(RESULTS, "Folder for the results.", default="comparison/ in a study, else a new one")
    ] = None,
    force: Annotated[bool, option(RESULTS, "Write into --out even if it exists.", "--force")] = False,
    json: Annotated[bool, option(RESULTS, "Print one JSON document.", "--json")] = False,
) -> None:
    """Compare runs and test their differences for significance.

    Runs that differ in the seed alone form one row, with accuracy, size and training time.

    A run that was not evaluated on the split is evaluated first.

    """
    from fgvc_cli.experiments import compare as comparing
    from fgvc_cli.experiments.comparison import groups_of, in_order
    from fgvc_cli.experiments.comparison_files import write_comparison
    from fgvc_cli.runs.folder import choose_new_folder

    in_order([], sort), groups_of([], group)  # refuse bad values before any run is evaluated
    selection = comparing.select_runs(runs)
    study = None if selection.study is None else selection.study.path
    if selection.study is not None and out is None:
        folder = selection.study.comparison
    else:
        folder = choose_new_folder(out, force, "comparison", "the comparison")
    evaluate = comparing.evaluator(device, precision, batch_size, workers, allow_changed_data)
    comparison = comparing.compare_selection(selection, split, evaluate, allow_changed_data)
    written = write_comparison(folder, comparison)
    if json:
        console.print_json(comparison.as_json())
    else:
        show_comparison(comparison, sort, group)
        show_files(written, study)
