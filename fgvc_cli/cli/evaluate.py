"""`fgvc evaluate`: score a run on a split of its dataset, or on other images of the same classes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fgvc_cli.cli import common_options as common

if TYPE_CHECKING:
    from fgvc_cli.evaluation.evaluate import Evaluation, EvaluationRequest
    from fgvc_cli.evaluation.sharpness import SharpnessRequest


def evaluate_scores(request: EvaluationRequest, ensemble: bool, per_class: bool, json: bool) -> None:
    """Score one run, or with `ensemble` the average of several.

    Args:
        request: what is wanted.
        ensemble: whether the runs' predictions are averaged.
        per_class: whether to list every class, not the worst few.
        json: whether to print the summary as JSON.

    Raises:
        FgvcError: it cannot be done.
        typer.Exit: 3 if some images could not be read.
    """
    from fgvc_cli.cli import console
    from fgvc_cli.cli.evaluation_tables import show_ensemble, show_evaluation
    from fgvc_cli.evaluation.ensemble import evaluate_ensemble
    from fgvc_cli.registry import get_registry

    for run in request.runs:
        console.note(f"run        {run}")
    evaluation = evaluate_ensemble(request, get_registry()) if ensemble else _evaluate_run(request)
    if json:
        console.print_json(evaluation.summary.as_json())
    elif ensemble:
        show_ensemble(evaluation, per_class)
    else:
        show_evaluation(evaluation, per_class)
    if evaluation.summary.failed:
        raise typer.Exit(3)


def _evaluate_run(request: EvaluationRequest) -> Evaluation:
    from fgvc_cli.cli import console
    from fgvc_cli.evaluation.evaluate import prepare
    from fgvc_cli.registry import get_registry

    prepared = prepare(request, get_registry())
    for line in prepared.notes():
        console.note(line)
    images = prepared.subject.split
    with console.progress(images.name, len(images)) as bar:
        return prepared.run(bar.advance)


def evaluate_sharpness(request: SharpnessRequest, json: bool) -> None:
    """Measure the loss around each run's weights.

    Args:
        request: what is wanted.
        json: whether to print the summary as JSON.

    Raises:
        FgvcError: it cannot be done.
        typer.Exit: 3 if some images could not be read; 130 if it was interrupted.
    """
    from fgvc_cli.cli import console
    from fgvc_cli.cli.evaluation_tables import show_sharpness
    from fgvc_cli.evaluation.sharpness import measure_sharpness
    from fgvc_cli.registry import get_registry

    for run in request.evaluation.runs:
        console.note(f"run        {run}")
    report = measure_sharpness(request, get_registry())
    if json:
        console.print_json(report.summary)
    else:
        show_sharpness(report)
    if report.summary["interrupted"]:
        raise typer.Exit(130)
    if report.summary["failed"]:
        raise typer.Exit(3)


EXAMPLE = "fgvc evaluate runs/RUN --data other-photos/"
LEARNT = "test, or val where there is none; with --sharpness what was trained on"
MODES, IMAGES, SHARPNESS, RESULTS = "Instead of the scores of one run", "Images", "Sharpness", "Results"


def evaluate(
    run_argument: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="RUN",
            help="Run folder or model.safetensors; several with --ensemble or --sharpness.",
            show_default="the newest finished run",
        ),
    ] = None,
    run: Annotated[
        list[Path] | None,
        typer.Option(help="The same, as an option. May be given several times.", show_default=False),
    ] = None,
    ensemble: Annotated[
        bool, typer.Option("--ensemble", help="Average the predictions of several runs.", rich_help_panel=MODES)
    ] = False,
    sharpness: Annotated[
        bool,
        typer.Option("--sharpness", help="Measure how far the loss rises around the weights.", rich_help_panel=MODES),
    ] = False,
    split: Annotated[str | None, common.split_option(IMAGES, "score", LEARNT)] = None,
    data: Annotated[Path | None, common.data_option(IMAGES)] = None,
    dataset: Annotated[str | None, common.dataset_option(IMAGES)] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="An option of the dataset, as dataset.option=value. May be given several times.",
            rich_help_panel=IMAGES,
        ),
    ] = None,
    ignore_unknown: Annotated[bool, common.ignore_unknown_option(IMAGES)] = False,
    rho: Annotated[
        float | None,
        typer.Option(help="Radius, in the weights' own units.", show_default="0.05", rich_help_panel=SHARPNESS),
    ] = None,
    adaptive_rho: Annotated[
        float | None,
        typer.Option(
            help="Measure the adaptive (ASAM) rise too, at this radius; ASAM trains with 0.5 to 2.",
            show_default=False,
            rich_help_panel=SHARPNESS,
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="So many images at most, spread over the classes.",
            show_default="128",
            rich_help_panel=SHARPNESS,
        ),
    ] = None,
    points: Annotated[
        int | None,
        typer.Option(
            min=3,
            help="Points along each side of the plane, an odd number.",
            show_default="13",
            rich_help_panel=SHARPNESS,
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="Of the random directions.", show_default="0", rich_help_panel=SHARPNESS),
    ] = None,
    device: common.Device = "auto",
    precision: common.Precision = "auto",
    batch_size: common.BatchSize = 32,
    workers: common.Workers = -1,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the results.",
            rich_help_panel=RESULTS,
            show_default="evaluation/SPLIT in the run; with several runs a new folder",
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Write into --out even if it exists.", rich_help_panel=RESULTS)
    ] = False,
    per_class: Annotated[
        bool, typer.Option("--per-class", help="List every class, not the worst ten.", rich_help_panel=RESULTS)
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.", rich_help_panel=RESULTS)] = False,
) -> None:
    """Score a run on a split or a folder.

    Prints top-1, top-5, precision, recall, F1 and the hardest classes, pairs and images.

    Writes a summary, a prediction for each image and the confusion matrix.

    Or averages several runs (--ensemble), or draws the loss around a run's weights (--sharpness).

    Exit code 3: done, but some images could not be read.

    """
    pass
    pass
    from fgvc_cli.config.datasets import dataset_settings
    from fgvc_cli.evaluation.evaluate import EvaluationRequest, refuse_what_does_not_go_together
    from fgvc_cli.evaluation.sharpness import sharpness_request
    from fgvc_cli.evaluation.split_selection import SplitRequest
    from fgvc_cli.scoring.model import Computing, find_model, find_models, one_run

    runs = [*(run_argument or []), *(run or [])]
    around = {"rho": rho, "adaptive_rho": adaptive_rho, "limit": limit, "points": points, "seed": seed}
    refuse_what_does_not_go_together(runs, ensemble, sharpness, around, per_class)
    models = find_models(runs) if ensemble or sharpness else [find_model(one_run(runs))]
    subject = SplitRequest(split, data, dataset, dataset_settings(set_ or []), ignore_unknown)
    request = EvaluationRequest(models, subject, Computing(device, precision, batch_size, workers), out, force)
    if sharpness:
        evaluate_sharpness(sharpness_request(request, around), json)
    else:
        evaluate_scores(request, ensemble, per_class, json)
