"""`fgvc report`: write a self-contained HTML report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fgvc_cli.cli import common_options as common
from fgvc_cli.cli import console
from fgvc_cli.cli.common_options import component_names, option
from fgvc_cli.cli.tables import next_lines
from fgvc_cli.formatting import bytes_text, percent, quoted

if TYPE_CHECKING:
    from fgvc_cli.report.report import Report
    from fgvc_cli.report.run_report import RunReport


def show_report(report: Report) -> None:
    """Print the accuracy of each run, what is missing, the file, and commands to continue with."""
    for run in report.runs:
        for sentence in run.missing:
            console.warn(f"{run.record.run.name}: {sentence}" if len(report.runs) > 1 else sentence)
    lines = [_accuracy(run) for run in report.runs] if report.study is None else []
    lines.append(f"page: {quoted(str(report.file))} ({bytes_text(report.size)})")
    run = report.runs[0]
    path = quoted(str(run.record.run.path))
    commands = []
    if run.image_files:
        image = quoted(str(next(iter(run.image_files.values()))))
        commands.append(f"fgvc explain {image} --run {path} --occlude --steps 3")
    if run.scores is not None:
        commands.append(f"fgvc evaluate {path} --split {run.scores.summary.split} --per-class")
    for line in [*lines, *next_lines(commands)]:
        console.out().print(line, soft_wrap=True)


def _accuracy(run: RunReport) -> str:
    name, scores = run.record.run.name, run.scores
    if scores is None:
        return f"{name}: no evaluation"
    summary = scores.summary
    error = percent(scores.standard_error)
    return f"{name}: {summary.split} top-1 {percent(summary.top1)} ± {error}, {summary.images} images"


EXAMPLE = "fgvc report runs/RUN --images 4"
SCORED, SHOWN, RESULTS = "Images to evaluate on", "Images to show", "Results"


def report(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="RUN... | STUDY",
            help="Run folders, one section each, or a study folder.",
            show_default="the newest finished run",
        ),
    ] = None,
    split: Annotated[str | None, common.split_option(SCORED, "report on")] = None,
    data: Annotated[Path | None, common.data_option(SCORED)] = None,
    dataset: Annotated[str | None, common.dataset_option(SCORED)] = None,
    set_: Annotated[
        list[str] | None,
        option(SCORED, "Option as dataset.option=value or explainer.option=value. Repeatable.", "--set"),
    ] = None,
    ignore_unknown: Annotated[bool, common.ignore_unknown_option(SCORED)] = False,
    allow_changed_data: Annotated[bool, common.allow_changed_data_option(SCORED)] = False,
    explainer: Annotated[
        str | None,
        option(
            SHOWN, "Explainer of the saliency maps.", default="gradcam", autocompletion=component_names("explainer")
        ),
    ] = None,
    images: Annotated[
        int, option(SHOWN, "Number of mistakes, and of occlusion tests; 0: no images.", min=0, max=1000)
    ] = 6,
    device: common.Device = "auto",
    precision: common.Precision = "auto",
    batch_size: common.BatchSize = 32,
    workers: common.Workers = -1,
    out: Annotated[
        Path | None,
        option(RESULTS, "HTML file.", default="report.html in the run or study; report-TIME.html here for several"),
    ] = None,
    force: Annotated[bool, option(RESULTS, "Replace --out if it exists.", "--force")] = False,
    json: Annotated[bool, option(RESULTS, "Print the content as JSON.", "--json")] = False,
) -> None:
    """Write a self-contained HTML report of a run or a study.

    Summary, learning curves, accuracy by class, confusion, the most confident mistakes with saliency maps, an occlusion
    test, and how to reproduce the run.

    A run that was not evaluated on the split is evaluated first.

    Exit code 3: some parts are missing; the report lists them.

    """
    from fgvc_cli.config.run_config import dataset_settings
    from fgvc_cli.evaluation.split_selection import SplitRequest
    from fgvc_cli.explaining.explainers import explainer_settings
    from fgvc_cli.registry import get_registry
    from fgvc_cli.report.examples import ReportRequest
    from fgvc_cli.report.report import write_report
    from fgvc_cli.scoring.model import InferenceSettings

    settings, others = explainer_settings(set_ or [])
    request = ReportRequest(
        split=SplitRequest(
            split, data, dataset, dataset_settings(others), ignore_unknown, allow_changed_data=allow_changed_data
        ),
        explainer=explainer,
        settings=settings,
        images=images,
        inference=InferenceSettings(device, precision, batch_size, workers),
    )
    try:
        written = write_report(runs or [], request, get_registry(), out, force)
    except KeyboardInterrupt:
        console.note("interrupted; no report was written")
        raise typer.Exit(130) from None
    if json:
        console.print_json(written.as_json())
    else:
        show_report(written)
    if not written.is_complete:
        raise typer.Exit(3)
