"""`fgvc train`: train a classifier into a run folder."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fgvc_cli.cli import common_options as common
from fgvc_cli.cli.common_options import setting
from fgvc_cli.cli.console import note, out, print_json, progress
from fgvc_cli.errors import UsageError
from fgvc_cli.formatting import counted, duration_text, percent, quoted
from fgvc_cli.progress import Progress

if TYPE_CHECKING:
    from fgvc_cli.contracts import Split
    from fgvc_cli.runs.folder import RunFolder
    from fgvc_cli.training.run import Outcome
    from fgvc_cli.training.setup import Job


FIRST_STEPS = 3
"""Batches of an epoch that are too slow to estimate its duration from."""

LONG_SECONDS = 600.0
"""Estimated duration of a training above which it is printed, with a shorter command."""


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
        """Print data, model, schedule and device."""
        from fgvc_cli.devices import describe_device

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
            times += f" on each of {job.ranks.count} processes ({images} images per update)"
        note(
            f"training   {config.optimizer.title} (rates {rates}), {counted(train.epochs, 'epoch')} in batches of "
            f"{train.batch_size}{times}, {train.schedule} schedule, recipe {config.recipe}"
        )
        each = f"{job.ranks.count} processes, each on " if job.ranks.count > 1 else ""
        note(f"device     {each}{describe_device(job.device)}, {job.precision}; run folder {run.path}")
        for line in job.notes:
            note(line)
        if resumed_epoch is not None:
            note(f"resuming after epoch {resumed_epoch} of {train.epochs}")

    def epoch_started(self, epoch: int, images: int, of: int) -> None:
        """Start the epoch's progress bar."""
        self._close()
        self._images, self._done, self._batches, self._started = of, 0, 0, time.monotonic()
        self._epoch = epoch
        self._bar = self._stack.enter_context(progress(f"epoch {epoch}/{self._epochs}", images, "images"))

    def batch_done(self, images: int, metrics: dict[str, float] | None) -> None:
        """Advance the bar; estimate the duration of the training after the first batches."""
        self._batches += 1
        if self._batches == FIRST_STEPS:  # the first ones are slower than the rest
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
        """Start the progress bar of the validation."""
        self._close()
        self._bar = self._stack.enter_context(progress("validation", images, "images"))

    def images_scored(self, images: int) -> None:
        """Advance the bar of validation or test."""
        if self._bar is not None:
            self._bar.advance(images)

    def epoch_finished(self, line: dict[str, Any], is_best: bool) -> None:
        """Print the epoch's metrics."""
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
        """Start the progress bar of the test split."""
        self._close()
        if images:
            self._bar = self._stack.enter_context(progress("test", images, "images"))

    def close(self) -> None:
        """Remove the progress bar."""
        self._close()

    def _close(self) -> None:
        self._stack.close()
        self._bar = None

    def _announce(self, epoch_seconds: float) -> None:
        left = epoch_seconds * (self._epochs - self._epoch + 1)
        if left > LONG_SECONDS:
            fewer = max(1, int(self._epochs * LONG_SECONDS / left / 2))
            note(
                f"This will take about {duration_text(left)}; for less, use --epochs {fewer} or a smaller --image-size"
            )


def show_outcome(outcome: Outcome) -> None:
    """Print the metrics of a finished training, its run folder, and the commands to run next."""
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
    if table.row_count:  # nothing was evaluated without epochs and without a test split
        out().print(table)
    for line in closing_lines(outcome):
        out().print(line, soft_wrap=True)


def closing_lines(outcome: Outcome) -> list[str]:
    """Return how the result compares with chance, the run folder, and the commands to run next."""
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
        lines.append("Trained from scratch; pretrained weights (--weights imagenet) usually do much better.")
    if summary["unreadable"]:
        lines.append(f"{counted(len(summary['unreadable']), 'image')} could not be read; see summary.json.")
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
    """Describe the origins of the splits, once if they have the same."""
    origins = {s.origin for s in splits}
    if len(origins) == 1:
        return f", {origins.pop()}" if splits[0].origin else ""
    return "".join(f"; {s.name} {s.origin}" for s in splits if s.origin)


def _running(metrics: dict[str, float]) -> str:
    """Format the metrics of the epoch so far; a head may lack scores, but always has an objective."""
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
    context: typer.Context,
    backbone: Annotated[
        str | None, common.component_option("backbone", COMPONENTS, "Backbone: computes features from images.")
    ] = None,
    head: Annotated[
        str | None, common.component_option("head", COMPONENTS, "Head: predicts classes from features.")
    ] = None,
    optimizer: Annotated[str | None, common.component_option("optimizer", COMPONENTS, "Optimizer.")] = None,
    weights: Annotated[str | None, setting("train.weights", COMPONENTS, "auto")] = None,
    dataset: Annotated[str | None, common.trained_dataset_option(DATA)] = None,
    data: Annotated[Path | None, common.trained_data_option(DATA)] = None,
    train_on: Annotated[str | None, setting("train.train_on", DATA, "train")] = None,
    sampling: Annotated[str | None, setting("train.sampling", DATA, "image")] = None,
    image_size: Annotated[int | None, setting("train.image_size", DATA)] = None,
    workers: Annotated[int | None, setting("train.workers", DATA, "-1")] = None,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Decode every image again in every epoch.", rich_help_panel=DATA)
    ] = False,
    strict_data: Annotated[bool, setting("train.strict_data", DATA, shown_default=False)] = False,
    epochs: Annotated[int | None, setting("train.epochs", TRAINING)] = None,
    batch_size: Annotated[int | None, setting("train.batch_size", TRAINING)] = None,
    lr: Annotated[
        float | None,
        typer.Option(
            help="Learning rate (of the backbone only, with --head-lr).",
            show_default="by recipe",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    head_lr: Annotated[
        float | None,
        typer.Option(
            help="Learning rate of the head.", show_default="by recipe, else same as --lr", rich_help_panel=TRAINING
        ),
    ] = None,
    seed: Annotated[int | None, setting("train.seed", TRAINING)] = None,
    recipe: Annotated[str | None, common.recipe_option(TRAINING)] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="TOML file of settings, such as a run's config.toml.", rich_help_panel=TRAINING),
    ] = None,
    set_: Annotated[list[str] | None, common.set_option(TRAINING)] = None,
    device: Annotated[str | None, setting("train.device", TRAINING, "auto")] = None,
    precision: Annotated[str | None, setting("train.precision", TRAINING, "auto")] = None,
    compile_: Annotated[bool, setting("train.compile", TRAINING, shown_default=False)] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="Run folder to create.", show_default="a new one under runs/", rich_help_panel=RUN),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace an existing run at --out.", rich_help_panel=RUN)
    ] = False,
    resume: Annotated[Path | None, typer.Option(help="Resume this interrupted run.", rich_help_panel=RUN)] = None,
    track: Annotated[
        list[str] | None,
        setting(
            "train.track",
            RUN,
            shown_default=False,
            help=common.SEVERAL,
            metavar="NAME",
            autocompletion=common.component_names("tracker"),
        ),
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Download nothing.", rich_help_panel=RUN)] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.", rich_help_panel=RUN)] = False,
) -> None:
    """Train a classifier into a run folder, which every other command can use.

    Without --data or --dataset a small synthetic dataset is generated on first use.

    Exit code 3: finished, but some images could not be read.
    """
    from fgvc_cli.config.run_config import user_settings
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
            if others := common.given_options(context, but=("resume", "offline", "json")):
                raise UsageError(f"--resume keeps the run's own settings; leave out {', '.join(others)}")
            outcome = training.resume(resume, get_registry(), view, offline)
        else:
            settings, named = user_settings(config, options, set_ or [])
            outcome = training.train(settings, recipe or named, out, offline, get_registry(), view, force)
    finally:
        view.close()
    if launched().rank > 0:
        return  # the first process prints the outcome
    if json:
        print_json(outcome.summary)
    else:
        show_outcome(outcome)
    if outcome.summary["unreadable"]:
        raise typer.Exit(3)
