"""`fgvc train`: trains a classifier and leaves a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fgvc_cli.commands.completion import component_names

EXAMPLE = "fgvc train --backbone swin_t --head pim --data photos/"

COMPONENTS, DATA, TRAINING, RUN = "Components", "Data", "Training", "Run"


def train(
    backbone: Annotated[
        str | None,
        typer.Option(
            help="Network that turns images into features.",
            show_default="by recipe",
            autocompletion=component_names("backbone"),
            rich_help_panel=COMPONENTS,
        ),
    ] = None,
    head: Annotated[
        str | None,
        typer.Option(
            help="What turns features into classes.",
            show_default="by recipe",
            autocompletion=component_names("head"),
            rich_help_panel=COMPONENTS,
        ),
    ] = None,
    optimizer: Annotated[
        str | None,
        typer.Option(
            help="What minimises the loss.",
            show_default="by recipe",
            autocompletion=component_names("optimizer"),
            rich_help_panel=COMPONENTS,
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="auto, imagenet, none, a file, or a tag of the backbone's weights.",
            show_default="auto",
            rich_help_panel=COMPONENTS,
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="Data set, by name.",
            show_default="demo",
            autocompletion=component_names("dataset"),
            rich_help_panel=DATA,
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="A folder of class folders, with or without train, val and test; or a CSV or TSV of path, label "
            "and, if it has them, splits.",
            rich_help_panel=DATA,
        ),
    ] = None,
    train_on: Annotated[
        str | None,
        typer.Option(
            metavar="train|train+val",
            help="train+val holds nothing out and keeps the last epoch.",
            show_default="train",
            rich_help_panel=DATA,
        ),
    ] = None,
    sampling: Annotated[
        str | None,
        typer.Option(
            metavar="image|class|root",
            help="What comes up equally often: each image, each class, or in between.",
            show_default="image",
            rich_help_panel=DATA,
        ),
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(
            help="Side of the images that the backbone sees, pixels.", show_default="by recipe", rich_help_panel=DATA
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes that read images.", show_default="by device", rich_help_panel=DATA)
    ] = None,
    no_cache: Annotated[
        bool,
        typer.Option("--no-cache", help="Decode every image in every epoch (fgvc data cache).", rich_help_panel=DATA),
    ] = False,
    strict_data: Annotated[
        bool, typer.Option("--strict-data", help="Stop at the first unreadable image.", rich_help_panel=DATA)
    ] = False,
    epochs: Annotated[
        int | None,
        typer.Option(help="Passes over the training images.", show_default="by recipe", rich_help_panel=TRAINING),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Images in a forward pass.", show_default="by recipe", rich_help_panel=TRAINING)
    ] = None,
    lr: Annotated[
        float | None,
        typer.Option(
            help="Learning rate (of the backbone, if --head-lr differs).",
            show_default="by recipe",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    head_lr: Annotated[
        float | None,
        typer.Option(
            help="Learning rate of the head.", show_default="by recipe, else as --lr", rich_help_panel=TRAINING
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            help="Seeds weights, order, augmentation and dropout.", show_default="by recipe", rich_help_panel=TRAINING
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="Named settings to begin from.",
            show_default="finetune with weights, scratch without",
            autocompletion=component_names("recipe"),
            rich_help_panel=TRAINING,
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="A TOML file of settings, such as a run's config.toml.", rich_help_panel=TRAINING),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="One setting, as kind.option=value, such as head.fpn_size=1024. May be given several times.",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu, cuda, cuda:N or mps.", show_default="auto", rich_help_panel=TRAINING)
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="auto, fp32 or bf16.", show_default="auto", rich_help_panel=TRAINING)
    ] = None,
    compile_: Annotated[
        bool, typer.Option("--compile", help="Compile the model (pays on long trainings).", rich_help_panel=TRAINING)
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Run folder to make.", show_default="a new one under runs/", rich_help_panel=RUN)
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the run that --out names.", rich_help_panel=RUN)
    ] = False,
    resume: Annotated[Path | None, typer.Option(help="Go on with this interrupted run.", rich_help_panel=RUN)] = None,
    track: Annotated[
        list[str] | None,
        typer.Option(
            help="Tracker that is told how it goes. May be given several times.",
            autocompletion=component_names("tracker"),
            rich_help_panel=RUN,
        ),
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Download nothing.", rich_help_panel=RUN)] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.", rich_help_panel=RUN)] = False,
) -> None:
    """Train a classifier; leave a run folder that every other command can use.

    Without --data or --dataset a small data set is drawn on the spot.
    """
    from fgvc_cli.display.console import print_json
    from fgvc_cli.display.training import TrainingView, show_outcome
    from fgvc_cli.launch import launched
    from fgvc_cli.registry import get_registry
    from fgvc_cli.training import run as training
    from fgvc_cli.training.settings import person_settings, refuse_with_resume

    options: dict[str, Any] = {
        "backbone": {"name": backbone},
        "head": {"name": head},
        "optimizer": {"name": optimizer, "lr": lr, "head_lr": head_lr},
        "dataset": {"name": dataset, "data": None if data is None else str(data)},
        "train": {
            "weights": weights,
            "train_on": train_on,
            "sampling": sampling,
            "cache": "off" if no_cache else None,
            "image_size": image_size,
            "workers": workers,
            "strict_data": strict_data or None,
            "epochs": epochs,
            "batch_size": batch_size,
            "seed": seed,
            "device": device,
            "precision": precision,
            "compile": compile_ or None,
            "track": track or None,
        },
    }
    view = TrainingView()
    try:
        if resume is not None:
            refuse_with_resume(options, recipe=recipe, config=config, out=out, set_=set_)
            outcome = training.resume(resume, get_registry(), view, offline)
        else:
            settings, named = person_settings(config, options, set_ or [])
            outcome = training.train(settings, recipe or named, out, offline, get_registry(), view, force)
    finally:
        view.close()
    if launched().rank > 0:
        return  # the first process tells the outcome
    if json:
        print_json(outcome.summary)
    else:
        show_outcome(outcome)
    if outcome.summary["unreadable"]:
        raise typer.Exit(3)
