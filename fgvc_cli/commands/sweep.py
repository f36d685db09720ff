"""`fgvc sweep`: trains every combination of a study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fgvc_cli.commands import common_options as common
from fgvc_cli.commands.completion import component_names

EXAMPLE = "fgvc sweep --backbone resnet50 --head linear --head pim --optimizer sgd --optimizer sam --data photos/"
COMBINED, SHARED, STUDY = "What is combined", "What all runs share", "Study"


def sweep(
    backbone: Annotated[list[str] | None, common.named_option("backbone", COMBINED, "by recipe")] = None,
    head: Annotated[list[str] | None, common.named_option("head", COMBINED, "by recipe")] = None,
    optimizer: Annotated[list[str] | None, common.named_option("optimizer", COMBINED, "by recipe")] = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            min=1, max=1000, help="Runs of each combination, each with another seed.", rich_help_panel=COMBINED
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="The first seed.", show_default="by recipe", rich_help_panel=COMBINED)
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="A study file; names given beside it choose among its combinations.", rich_help_panel=COMBINED
        ),
    ] = None,
    study: Annotated[
        str | None,
        typer.Option(
            help="A study that is ready, by name (fgvc list-plugins --kind study).",
            show_default=False,
            autocompletion=component_names("study"),
            rich_help_panel=COMBINED,
        ),
    ] = None,
    dataset: Annotated[str | None, common.trained_dataset_option(SHARED)] = None,
    data: Annotated[Path | None, common.trained_data_option(SHARED)] = None,
    weights: Annotated[str | None, common.weights_option(SHARED)] = None,
    image_size: Annotated[int | None, common.setting_option(common.IMAGE_SIZE, SHARED)] = None,
    epochs: Annotated[int | None, common.setting_option(common.EPOCHS, SHARED)] = None,
    batch_size: Annotated[int | None, common.setting_option(common.BATCH_SIZE, SHARED)] = None,
    recipe: Annotated[str | None, common.recipe_option(SHARED)] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help=f"One setting, as kind.option=value; a component's goes to those that have it. {common.SEVERAL}",
            rich_help_panel=SHARED,
        ),
    ] = None,
    device: Annotated[str | None, common.setting_option(common.DEVICE, SHARED, "auto")] = None,
    precision: Annotated[str | None, common.setting_option(common.PRECISION, SHARED, "auto")] = None,
    compile_: Annotated[bool, typer.Option("--compile", help="Compile the models.", rich_help_panel=SHARED)] = False,
    workers: Annotated[int | None, common.setting_option(common.WORKERS, SHARED, "by device")] = None,
    jobs: Annotated[
        int, typer.Option(min=1, help="Runs trained at a time, each on a GPU of its own.", rich_help_panel=STUDY)
    ] = 1,
    out: Annotated[
        Path | None,
        typer.Option(help="Study folder to make.", show_default="a new one under runs/", rich_help_panel=STUDY),
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Go on with this study, whatever ended it.", rich_help_panel=STUDY)
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Beside --resume: try failed runs again.", rich_help_panel=STUDY)
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the runs, and train nothing.", rich_help_panel=STUDY)
    ] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Download nothing.", rich_help_panel=STUDY)] = False,
    json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print the comparison, or with --dry-run the runs, as JSON.", rich_help_panel=STUDY
        ),
    ] = False,
) -> None:
    """Train every combination, each as an ordinary run, in one study folder; then compare them.

    What ends one run does not end the study: it is told in the table, and the others go on.

    Exit code 3: done, but some runs failed; 130: interrupted, go on with --resume.

    """
    from fgvc_cli.comparing import comparing
    from fgvc_cli.display import comparison_tables, console, sweep_view
    from fgvc_cli.launch import launched
    from fgvc_cli.registry import get_registry
    from fgvc_cli.studies import sweeping
    from fgvc_cli.studies.request import SweepRequest

    shared: dict[str, dict[str, Any]] = {
        "dataset": {"name": dataset, "data": None if data is None else str(data)},
        "train": {
            "weights": weights,
            "image_size": image_size,
            "epochs": epochs,
            "batch_size": batch_size,
            "device": device,
            "precision": precision,
            "compile": compile_ or None,
            "workers": workers,
        },
    }
    names = {"backbone": backbone or [], "head": head or [], "optimizer": optimizer or []}
    request = SweepRequest(names, shared, set_ or [], recipe, seeds, seed, config, study)
    sweeping.refuse_torchrun(launched())
    registry = get_registry()
    if resume is not None:
        request.refuse_with_resume(out)
        sweep = sweeping.again(resume, registry)
    else:
        request.refuse_without_resume(retry_failed)
        sweep = sweeping.new(request, registry, out)
    for line in sweep.edited_lines():
        console.warn(line)
    if dry_run:
        console.print_json(sweep.listed()) if json else sweep_view.list_runs(sweep)
        return
    for line in sweep.data_lines():
        console.note(line)
    folder = sweep.make_folder(out)
    sweep_view.announce(sweep.study, folder)
    with sweep_view.SweepView() as view:
        outcome = sweeping.train(sweep, folder, jobs, offline, retry_failed, registry, view)
    sweeping.refuse_if_all_failed(outcome, folder)
    compared = comparing.run(comparing.of_study(folder.path), None, comparing.evaluator())
    if json:
        console.print_json(compared.comparison.as_json())
    else:
        comparison_tables.show_comparison(compared.comparison, "top1", "none")
        comparison_tables.show_places(compared.written, folder.path)
    if outcome.failed:
        console.note(sweeping.retry_text(folder))
        raise typer.Exit(3)
