"""`fgvc train`: trains a classifier and leaves a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fgvc_cli.commands import common_options as common
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
    weights: Annotated[str | None, common.weights_option(COMPONENTS)] = None,
    dataset: Annotated[str | None, common.trained_dataset_option(DATA)] = None,
    data: Annotated[Path | None, common.trained_data_option(DATA)] = None,
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
    image_size: Annotated[int | None, common.setting_option(common.IMAGE_SIZE, DATA)] = None,
    workers: Annotated[int | None, common.setting_option(common.WORKERS, DATA, "by device")] = None,
    no_cache: Annotated[
        bool,
        typer.Option("--no-cache", help="Decode every image in every epoch (fgvc data cache).", rich_help_panel=DATA),
    ] = False,
    strict_data: Annotated[
        bool, typer.Option("--strict-data", help="Stop at the first unreadable image.", rich_help_panel=DATA)
    ] = False,
    epochs: Annotated[int | None, common.setting_option(common.EPOCHS, TRAINING)] = None,
    batch_size: Annotated[int | None, common.setting_option(common.BATCH_SIZE, TRAINING)] = None,
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
    recipe: Annotated[str | None, common.recipe_option(TRAINING)] = None,
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
    device: Annotated[str | None, common.setting_option(common.DEVICE, TRAINING, "auto")] = None,
    precision: Annotated[str | None, common.setting_option(common.PRECISION, TRAINING, "auto")] = None,
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
