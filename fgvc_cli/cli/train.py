"""`fgvc train`: train a classifier into a run folder."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from fgvc_cli.cli import common_options as common
from fgvc_cli.cli.common_options import component_names, option, setting
from fgvc_cli.errors import UsageError

EXAMPLE = "fgvc train --backbone swin_t --head pim --data photos/"

COMPONENTS, DATA, TRAINING, RUN = "Components", "Data", "Training", "Run"
PROCESSES = "Several devices"


def train(
    context: typer.Context,
    backbone: Annotated[
        str | None, common.component_option("backbone", COMPONENTS, "Backbone: computes features from images.")
    ] = None,
    head: Annotated[
        str | None, common.component_option("head", COMPONENTS, "Head: predicts classes from features.")
    ] = None,
    optimizer: Annotated[str | None, common.component_option("optimizer", COMPONENTS, "Optimizer.")] = None,
    weights: Annotated[str | None, setting("train.weights", COMPONENTS, "auto")] = None,
    partial_weights: Annotated[bool, setting("train.partial_weights", COMPONENTS, shown_default=False)] = False,
    dataset: Annotated[str | None, common.trained_dataset_option(DATA)] = None,
    data: Annotated[Path | None, common.trained_data_option(DATA)] = None,
    exclude: Annotated[Path | None, setting("train.exclude", DATA, False, metavar="FILE")] = None,
    group_by: Annotated[str | None, setting("train.group_by", DATA, False, metavar="COLUMN")] = None,
    train_on: Annotated[str | None, setting("train.train_on", DATA, "train")] = None,
    sampling: Annotated[str | None, setting("train.sampling", DATA, "image")] = None,
    image_size: Annotated[int | None, setting("train.image_size", DATA)] = None,
    workers: Annotated[int | None, setting("train.workers", DATA, "-1")] = None,
    no_cache: Annotated[bool, option(DATA, "Decode every image again in every epoch.", "--no-cache")] = False,
    strict_data: Annotated[bool, setting("train.strict_data", DATA, shown_default=False)] = False,
    epochs: Annotated[int | None, setting("train.epochs", TRAINING)] = None,
    batch_size: Annotated[int | None, setting("train.batch_size", TRAINING)] = None,
    lr: Annotated[
        float | None, option(TRAINING, "Learning rate (of the backbone only, with --head-lr).", default="by recipe")
    ] = None,
    head_lr: Annotated[
        float | None, option(TRAINING, "Learning rate of the head.", default="by recipe, else same as --lr")
    ] = None,
    seed: Annotated[int | None, setting("train.seed", TRAINING)] = None,
    recipe: Annotated[str | None, common.recipe_option(TRAINING)] = None,
    config: Annotated[Path | None, option(TRAINING, "TOML file of settings, such as a run's config.toml.")] = None,
    set_: Annotated[list[str] | None, common.set_option(TRAINING)] = None,
    device: Annotated[str | None, setting("train.device", TRAINING, "auto")] = None,
    precision: Annotated[str | None, setting("train.precision", TRAINING, "auto")] = None,
    compile_: Annotated[bool, setting("train.compile", TRAINING, shown_default=False)] = False,
    devices: Annotated[
        str | None,
        option(PROCESSES, "Number of GPUs to train on, or auto: all of this machine.", metavar="N|auto", default="1"),
    ] = None,
    nodes: Annotated[
        int | None, option(PROCESSES, "Number of machines; start the same command on each.", min=1, default="1")
    ] = None,
    rendezvous: Annotated[
        str | None,
        option(PROCESSES, "Address of one of the machines, where they meet.", metavar="HOST:PORT", default=False),
    ] = None,
    out: Annotated[Path | None, option(RUN, "Run folder to create.", default="a new one under runs/")] = None,
    force: Annotated[bool, option(RUN, "Replace an existing run at --out.", "--force")] = False,
    resume: Annotated[Path | None, option(RUN, "Resume this interrupted run.")] = None,
    allow_changed_data: Annotated[
        bool,
        common.allow_changed_data_option(RUN, "With --resume: go on even if images were added, removed or edited."),
    ] = False,
    track: Annotated[
        list[str] | None,
        setting(
            "train.track",
            RUN,
            shown_default=False,
            help=common.SEVERAL,
            metavar="NAME",
            autocompletion=component_names("tracker"),
        ),
    ] = None,
    offline: Annotated[bool, option(RUN, "Download nothing.", "--offline")] = False,
    json: Annotated[bool, option(RUN, "Print the summary as JSON.", "--json")] = False,
) -> None:
    """Train a classifier into a run folder, which every other command can use.

    Without --data or --dataset a small synthetic dataset is generated on first use.

    Exit code 3: finished, but some images could not be read.
    """
    from fgvc_cli.cli.console import print_json
    from fgvc_cli.cli.training_view import TrainingView, resume_command, show_result
    from fgvc_cli.config.run_config import user_settings
    from fgvc_cli.launch import launched, started_by_fgvc
    from fgvc_cli.registry import get_registry
    from fgvc_cli.training import run as training
    from fgvc_cli.training.state import Interrupted

    options: dict[str, Any] = {
        "backbone": {"name": backbone},
        "head": {"name": head},
        "optimizer": {"name": optimizer, "lr": lr, "head_lr": head_lr},
        "dataset": {"name": dataset, "data": None if data is None else str(data)},
        "train": {
            "weights": weights,
            "partial_weights": partial_weights or None,
            "exclude": None if exclude is None else str(exclude),
            "group_by": group_by,
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
    several = {"devices": devices, "nodes": nodes, "rendezvous": rendezvous}
    if any(value is not None for value in several.values()) and not started_by_fgvc():
        code = _in_processes(several, device, config, set_ or [], resume)
        if code is not None:
            raise typer.Exit(code)
    try:
        if resume is not None:
            kept = ("resume", "allow_changed_data", "offline", "json", *several)
            if others := common.given_options(context, but=kept):
                raise UsageError(
                    f"--resume keeps the run's own settings; leave out {', '.join(others)} (train.device, "
                    f"train.workers and dataset.data can be changed in {resume / 'config.toml'})"
                )
            result = training.resume(resume, get_registry(), [TrainingView()], offline, allow_changed_data)
        elif allow_changed_data:
            raise UsageError("--allow-changed-data needs --resume RUN; a new run records the data as it is")
        else:
            settings, named = user_settings(config, options, set_ or [])
            result = training.train(settings, recipe or named, out, offline, get_registry(), [TrainingView()], force)
    except Interrupted as error:
        raise Interrupted(f"{error}. Resume with: {resume_command(error.run)}", error.run, error.signal) from error
    if launched().rank > 0:
        return  # the first process prints the result
    if json:
        print_json(result.summary.as_json())
    else:
        show_result(result)
    if result.summary.unreadable:
        raise typer.Exit(3)


def _in_processes(
    several: dict[str, Any], device: str | None, config: Path | None, texts: list[str], resume: Path | None
) -> int | None:
    """Start this command in several processes and return their exit code; None if one is enough: this one."""
    from fgvc_cli.config.run_config import read_config, user_settings
    from fgvc_cli.devices import pick_device
    from fgvc_cli.launch import launched
    from fgvc_cli.training.processes import Processes, count_devices, start

    if launched().count > 1:
        given = next(name for name, value in several.items() if value is not None)
        raise UsageError(f"--{given}: torchrun has already started {launched().count} processes; leave it out")
    if resume is None:
        layers, _ = user_settings(config, {"train": {"device": device}}, texts)
    else:
        file = resume / "config.toml"
        layers = [read_config(file)[0]] if file.is_file() else []
    chosen = [layer["train"]["device"] for layer in layers if "device" in layer.get("train", {})]
    local = count_devices(several["devices"] or "auto", pick_device(str(chosen[-1] if chosen else "auto")))
    processes = Processes(local, several["nodes"] or 1, several["rendezvous"] or "")
    return start([sys.executable, *sys.orig_argv[1:]], processes) if processes.count > 1 else None
