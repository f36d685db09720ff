"""`fgvc report`: write a self-contained HTML report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fgvc_cli.cli import common_options as common
from fgvc_cli.cli.completion import component_names
from fgvc_cli.cli.console import out, warn
from fgvc_cli.formatting import bytes_text, percent, quoted

if TYPE_CHECKING:
    from fgvc_cli.report.report import Report
    from fgvc_cli.report.run_report import RunReport


def show_report(report: Report) -> None:
    """Print what came out of each run, what is missing, where the page is, and what to try next."""
    for run in report.runs:
        for sentence in run.missing:
            warn(f"{run.recorded.run.name}: {sentence}" if len(report.runs) > 1 else sentence)
    for line in closing_lines(report):
        out().print(line, soft_wrap=True)


def closing_lines(report: Report) -> list[str]:
    """Return the figures, the file, and the commands most people would want next."""
    page = quoted(str(report.file))
    lines = [_outcome(run) for run in report.runs] if report.study is None else []
    lines.append(f"page: {page} ({bytes_text(report.size)}), to be opened in any browser")
    run = report.runs[0]
    path = quoted(str(run.recorded.run.path))
    commands = []
    if run.files:
        image = quoted(str(next(iter(run.files.values()))))
        commands.append(f"fgvc explain {image} --run {path} --occlude --steps 3")
    if run.scored is not None:
        commands.append(f"fgvc evaluate {path} --split {run.scored.summary.split} --per-class")
    return lines + [head + command for head, command in zip(("next: ", "      "), commands, strict=False)]


def _outcome(run: RunReport) -> str:
    name, scored = run.recorded.run.name, run.scored
    if scored is None:
        return f"{name}: no split is scored"
    summary = scored.summary
    error = percent(scored.standard_error)
    return f"{name}: {summary.split} top-1 {percent(summary.top1)} ± {error}, {summary.images} images"


EXAMPLE = "fgvc report runs/RUN --images 4"
SCORED, SHOWN, RESULTS = "Images it is scored on", "Images that are shown", "Results"


def report(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="RUN... | STUDY",
            help="Run folders, a section each, or the folder of a study.",
            show_default="the newest finished run",
        ),
    ] = None,
    split: Annotated[str | None, common.split_option(SCORED, "report of")] = None,
    data: Annotated[Path | None, common.data_option(SCORED)] = None,
    dataset: Annotated[str | None, common.dataset_option(SCORED)] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="An option, as dataset.option=value or explainer.option=value. May be given several times.",
            rich_help_panel=SCORED,
        ),
    ] = None,
    ignore_unknown: Annotated[bool, common.ignore_unknown_option(SCORED)] = False,
    explainer: Annotated[
        str | None,
        typer.Option(
            help="What draws the heat maps.",
            show_default="gradcam",
            autocompletion=component_names("explainer"),
            rich_help_panel=SHOWN,
        ),
    ] = None,
    images: Annotated[
        int,
        typer.Option(
            min=0, help="So many mistakes, and as many images for the occlusion test; 0: none.", rich_help_panel=SHOWN
        ),
    ] = 6,
    device: common.Device = "auto",
    precision: common.Precision = "auto",
    batch_size: common.BatchSize = 32,
    workers: common.Workers = -1,
    out: Annotated[
        Path | None,
        typer.Option(
            help="File for the page.",
            rich_help_panel=RESULTS,
            show_default="report.html in the run or study; report-TIME.html here for several",
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace --out if it exists.", rich_help_panel=RESULTS)
    ] = False,
    json: Annotated[
        bool, typer.Option("--json", help="Print the facts of the page as JSON.", rich_help_panel=RESULTS)
    ] = False,
) -> None:
    """Make one HTML page of what a run is and does, or of a whole study.

    Summary, learning curves, accuracy by class, confusion, the most confident mistakes with heat maps, the occlusion
    test, and how to do it all again. The page loads nothing from elsewhere.

    A split that was not evaluated yet is.

    Exit code 3: done, but some parts could not be made; the page says which.

    """
    from fgvc_cli.cli import console

    pass
    from fgvc_cli.config.datasets import dataset_settings
    from fgvc_cli.evaluation.split_selection import SplitRequest
    from fgvc_cli.explaining.explainers import explainer_settings
    from fgvc_cli.registry import get_registry
    from fgvc_cli.report.examples import ReportRequest
    from fgvc_cli.report.report import make_report
    from fgvc_cli.scoring.model import Computing

    settings, others = explainer_settings(set_ or [])
    request = ReportRequest(
        subject=SplitRequest(split, data, dataset, dataset_settings(others), ignore_unknown),
        explainer=explainer,
        settings=settings,
        images=images,
        computing=Computing(device, precision, batch_size, workers),
    )
    try:
        made = make_report(runs or [], request, get_registry(), out, force)
    except KeyboardInterrupt:
        console.note("interrupted: no page was written")
        raise typer.Exit(130) from None
    if json:
        console.print_json(made.as_json())
    else:
        show_report(made)
    if not made.is_whole:
        raise typer.Exit(3)
