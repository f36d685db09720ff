"""`fgvc train`: train a classifier into a run folder."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fgvc_cli.cli import common_options as common
from fgvc_cli.cli.common_options import component_names
from fgvc_cli.cli.console import note, out, progress
from fgvc_cli.devices import describe_device
from fgvc_cli.formatting import duration_text, percent, quoted
from fgvc_cli.progress import Progress

if TYPE_CHECKING:
    from fgvc_cli.contracts import Split
    from fgvc_cli.runs.folder import RunFolder
    from fgvc_cli.training.run import Outcome
    from fgvc_cli.training.setup import Job


FIRST_STEPS = 3
"""Batches of an epoch that say nothing of its pace."""

LONG_SECONDS = 600.0
"""A training that will take longer than this is announced, with a shorter command."""


class TrainingView:
    """Shows a training as it goes; see `fgvc_cli.training.run.View` for when each method is called."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._bar: Progress | None = None
        self._announced = False
        self._images = self._done = self._batches = self._epoch = self._epochs = 0
        self._started = 0.0

    def announce(self, text: str) -> None:
        """Print a line about weights."""
        note(text)

    def started(self, job: Job, run: RunFolder, resumed_epoch: int | None) -> None:
        """Say in four lines what will be done."""
        config, splits = job.config, job.splits
        counts = [f"{len(s)} {s.name}" for s in (splits.train, splits.val, splits.test) if s is not None]
        origins = _origins([s for s in (splits.train, splits.val, splits.test) if s is not None])
        source = f" ({config.data})" if config.data else ""
        parameters = sum(p.numel() for p in job.classifier.parameters())
        train = config.train
        rates = ", ".join(f"{part} {rate:.3g}" for part, rate in job.optimizer.rates().items())
        self._epochs = train.epochs
        note(
            f"data       {config.dataset.name}{source}: {len(job.classifier.class_names)} classes, "
            f"{' + '.join(counts)} images{origins}"
        )
        note(
            f"model      {config.backbone.name} + {config.head.name} at {train.image_size} px, "
            f"{parameters / 1e6:.1f} M parameters, weights: {train.weights}"
        )
        times = f" x {train.grad_accum_steps}" if train.grad_accum_steps > 1 else ""
        if job.ranks.count > 1:
            images = train.batch_size * train.grad_accum_steps * job.ranks.count
            times += f" on each of {job.ranks.count} processes ({images} images an update)"
        note(
            f"training   {config.optimizer.title} (rates {rates}), {train.epochs} epochs in batches of "
            f"{train.batch_size}{times}, {train.schedule} schedule, recipe {config.recipe}"
        )
        each = f"{job.ranks.count} processes, each on " if job.ranks.count > 1 else ""
        note(f"device     {each}{describe_device(job.device)}, {job.precision}; run folder {run.path}")
        for line in job.notes:
            note(line)
        if resumed_epoch is not None:
            note(f"going on after epoch {resumed_epoch} of {train.epochs}")

    def epoch_started(self, epoch: int, images: int, of: int) -> None:
        """Put up the epoch's bar."""
        self._close()
        self._images, self._done, self._batches, self._started = of, 0, 0, time.monotonic()
        self._epoch = epoch
        self._bar = self._stack.enter_context(progress(f"epoch {epoch}/{self._epochs}", images, "images"))

    def batch_done(self, images: int, metrics: dict[str, float] | None) -> None:
        """Move the bar; announce a long training once its pace is known."""
        self._batches += 1
        if self._batches == FIRST_STEPS:  # the first are slower than those to come
            self._done, self._started = 0, time.monotonic()
        else:
            self._done += images
        text = "" if not metrics else _running(metrics)
        if self._bar is not None:
            self._bar.advance(images, text)
        if self._batches == FIRST_STEPS + 10 and not self._announced:
            self._announced = True
            self._announce((time.monotonic() - self._started) / self._done * self._images)

    def validation_started(self, images: int) -> None:
        """Put up the bar of the validation."""
        self._close()
        self._bar = self._stack.enter_context(progress("validation", images, "images"))

    def images_scored(self, images: int) -> None:
        """Move the bar of validation or test."""
        if self._bar is not None:
            self._bar.advance(images)

    def epoch_finished(self, line: dict[str, Any], is_best: bool) -> None:
        """Print the epoch's line."""
        self._close()
        rates = " / ".join(f"{rate:.2g}" for rate in dict.fromkeys(line["rates"].values()))
        parts = [f"epoch {line['epoch']:>3}/{self._epochs}", f"train {_figures(line['train'])}"]
        if line["val"] is not None:
            parts.append(f"val {_figures(line['val'])}{' *' if is_best else '  '}")
        note(
            "   ".join(
                [*parts, f"rate {rates}", f"{line['images_per_second']:.0f} images/s", f"{line['seconds']:.0f} s"]
            )
        )

    def testing(self, images: int) -> None:
        """Put up the bar of the test split."""
        self._close()
        if images:
            self._bar = self._stack.enter_context(progress("test", images, "images"))

    def close(self) -> None:
        """Take down what is still up."""
        self._close()

    def _close(self) -> None:
        self._stack.close()
        self._bar = None

    def _announce(self, epoch_seconds: float) -> None:
        left = epoch_seconds * (self._epochs - self._epoch + 1)
        if left > LONG_SECONDS:
            fewer = max(1, int(self._epochs * LONG_SECONDS / left / 2))
            note(f"This will take about {duration_text(left)}. Shorter: --epochs {fewer}, or a smaller --image-size.")


def show_outcome(outcome: Outcome) -> None:
    """Print the table of a finished training, where it is, and what to try next."""
    from rich.table import Table

    summary = outcome.summary
    table = Table(box=None, header_style="bold")
    for title in ("split", "images", "top-1", "top-5", "macro F1"):
        table.add_column(title, justify="left" if title == "split" else "right")
    for name in ("train", "val", "test"):
        row = summary[name]
        if row is not None:
            macro = row.get("macro", {}).get("f1")
            label = f"{name} (augmented)" if name == "train" else name
            table.add_row(label, str(row["images"]), percent(row.get("top1")), percent(row.get("top5")), percent(macro))
    if table.row_count:  # no epochs, and no test split: nothing was scored
        out().print(table)
    for line in closing_lines(outcome):
        out().print(line, soft_wrap=True)


def closing_lines(outcome: Outcome) -> list[str]:
    """Return an honest word on the result, the run folder, and the commands most people would want next."""
    summary, run = outcome.summary, outcome.run
    kind = "test" if summary["test"] else "val" if summary["val"] else None
    lines = []
    if kind:
        top1, chance = summary[kind]["top1"], summary["chance"]
        lines.append(
            f"{kind} top-1 {percent(top1)} where chance is {percent(chance)}: {top1 / chance:.1f} times chance"
            f" ({_whose_weights(summary)})."
        )
    if outcome.job.config.train.weights == "none":
        lines.append("It learned from nothing: pretrained weights (--weights imagenet) do far better on few images.")
    if summary["unreadable"]:
        count = len(summary["unreadable"])
        lines.append(f"{count} {'image' if count == 1 else 'images'} could not be read; summary.json names them.")
    lines.append(f"run: {run.path}")
    commands = [f"fgvc evaluate {quoted(str(run.path))}"]
    if outcome.samples:
        sample, run_path = quoted(str(outcome.samples[0])), quoted(str(run.path))
        commands.insert(0, f"fgvc explain {sample} --run {run_path} --occlude")
    lines += [head + command for head, command in zip(("next: ", "      "), commands, strict=False)]
    return lines


def _whose_weights(summary: dict[str, Any]) -> str:
    if not summary["epochs"]:
        return "not trained here"
    return f"weights of epoch {summary['best_epoch']} of {summary['epochs']}"


def _origins(splits: list[Split]) -> str:
    """Say how the splits came about, in as few words as it takes."""
    said = {s.origin for s in splits}
    if len(said) == 1:
        return f", {said.pop()}" if splits[0].origin else ""
    return "".join(f"; {s.name} {s.origin}" for s in splits if s.origin)


def _running(metrics: dict[str, float]) -> str:
    """Say how the epoch goes so far; a head need not give scores, but it always has an objective."""
    if "top1" not in metrics:
        return f"objective {metrics['objective']:.3f}"
    return f"loss {metrics['loss']:.3f}, top-1 {100 * metrics['top1']:.1f} %"


def _figures(row: dict[str, Any]) -> str:
    if "top1" not in row:
        return f"objective {row['objective']:.3f}"
    top5 = f" / {100 * row['top5']:5.1f}" if "top5" in row else ""
    loss = "  n/a" if row["loss"] is None else f"{row['loss']:.3f}"
    return f"loss {loss} top-1{' / 5' if top5 else ''} {100 * row['top1']:5.1f}{top5} %"


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
            help="What minimizes the loss.",
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
            metavar="image|class|sqrt",
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

    Without --data or --dataset a small dataset is drawn on the spot.
    """
    from fgvc_cli.cli.console import print_json

    pass
    from fgvc_cli.config.run_config import person_settings, refuse_with_resume
    from fgvc_cli.launch import launched
    from fgvc_cli.registry import get_registry
    from fgvc_cli.training import run as training

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
