"""How `fgvc train` shows a training: settings, bars, a line per epoch, and the result."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from rich.table import Table

from fgvc_cli.cli.console import note, out, progress
from fgvc_cli.cli.explain import DEFAULT_EXPLAINER
from fgvc_cli.cli.tables import next_lines
from fgvc_cli.contracts import FittedHead, RunStart, Split
from fgvc_cli.devices import describe_device
from fgvc_cli.errors import FgvcError
from fgvc_cli.explaining.explainers import make_explainer
from fgvc_cli.formatting import counted, duration_text, percent, quoted
from fgvc_cli.launch import launched, started_by_fgvc
from fgvc_cli.progress import Progress
from fgvc_cli.registry import get_registry
from fgvc_cli.runs.results import EpochMetrics, SplitMetrics, TrainingSummary, TrainMetrics, ValMetrics
from fgvc_cli.training.callbacks import Callback
from fgvc_cli.training.run import TrainingResult
from fgvc_cli.training.setup import Job

WARM_UP_BATCHES = 3
"""First batches of an epoch, which are slower than the others and left out of the estimate."""

LONG_SECONDS = 600.0
"""A training that will take longer than this is announced, with settings that shorten it."""


class TrainingView(Callback):
    """Shows a training while it runs."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._bar: Progress | None = None
        self._announced = False
        self._images = self._done = self._batches = self._epoch = self._epochs = 0
        self._started = 0.0
        self._epochs_left: Callable[[int], float] = lambda epoch: self._epochs - epoch + 1

    def on_train_start(self, run: RunStart, job: Job) -> None:
        """Print data, model, settings and device, then the notes."""
        config, splits = job.config, [s for s in (job.splits.train, job.splits.val, job.splits.test) if s is not None]
        train, processes = config.train, job.ranks.count
        self._epochs, self._epochs_left = train.epochs, lambda epoch: job.sizes.epochs_left(epoch - 1)
        source = f" ({config.data})" if config.data else ""
        counts = " + ".join(f"{len(s)} {s.name}" for s in splits)
        parameters = sum(p.numel() for p in job.classifier.parameters())
        rates = ", ".join(f"{part} {rate:.3g}" for part, rate in job.optimizer.rates().items())
        fitted = isinstance(job.classifier.head, FittedHead)
        batches = f"{job.batch_size} x {train.grad_accum_steps}" if train.grad_accum_steps > 1 else job.batch_size
        if processes > 1:
            batches = f"{batches} on each of {processes} processes ({job.images_per_update} images per update)"
        device = describe_device(job.device)
        device = f"{processes} processes, each on {device}" if processes > 1 else device
        for line in (
            f"data       {config.dataset.name}{source}: {len(job.classifier.class_names)} classes, {counts} images"
            f"{_origins(splits)}",
            f"model      {config.backbone.name} + {config.head.name} at {train.image_size} px, "
            f"{parameters / 1e6:.1f} M parameters, weights: {train.weights}",
            f"training   {config.head.name} is fitted to features of the frozen backbone, recipe {config.recipe}"
            if fitted
            else f"training   {config.optimizer.title} (rates {rates}), {counted(train.epochs, 'epoch')} in batches of "
            f"{batches}, {train.schedule} schedule, recipe {config.recipe}",
            f"device     {device}, {job.precision}; run folder {run.folder}",
            *job.notes,
        ):
            note(line)
        if run.resumed:
            note(f"resuming after epoch {run.epochs_done} of {train.epochs}")

    def on_epoch_start(self, epoch: int, images: int, remaining: int) -> None:
        """Show the bar of the epoch."""
        self._images, self._done, self._batches, self._started = images, 0, 0, time.monotonic()
        self._epoch = epoch
        self._show_bar(f"epoch {epoch}/{self._epochs}", remaining)

    def on_batch_end(self, images: int, metrics: Mapping[str, float] | None) -> None:
        """Advance the bar; announce a long training once its pace is known."""
        self._batches += 1
        if self._batches == WARM_UP_BATCHES:
            self._done, self._started = 0, time.monotonic()
        else:
            self._done += images
        if self._bar is not None:
            self._bar.advance(images, _running_text(metrics) if metrics else "")
        if self._batches == WARM_UP_BATCHES + 10 and not self._announced:
            self._announced = True
            self._announce((time.monotonic() - self._started) / self._done * self._images)

    def on_validation_start(self, images: int) -> None:
        """Show the bar of the validation."""
        self._show_bar("validation", images)

    def on_images_scored(self, images: int) -> None:
        """Advance the bar of validation or test."""
        if self._bar is not None:
            self._bar.advance(images)

    def on_epoch_end(self, metrics: EpochMetrics, is_best: bool) -> None:
        """Print the line of the epoch."""
        self._close()
        rates = " / ".join(f"{rate:.2g}" for rate in dict.fromkeys(metrics.rates.values()))
        label = f"epoch {metrics.epoch:>3}/{self._epochs}" if rates else "fitted"
        parts = [label, f"train {_metrics_text(metrics.train)}"]
        if metrics.val is not None:
            parts.append(f"val {_metrics_text(metrics.val)}{' *' if is_best and rates else '  '}")
        pace = [
            *[f"rate {rates}"] * bool(rates),
            f"{metrics.images_per_second:.0f} images/s",
            f"{metrics.seconds:.0f} s",
        ]
        note("   ".join([*parts, *pace]))

    def on_test_start(self, images: int) -> None:
        """Show the bar of the test split."""
        if images:
            self._show_bar("test", images)

    def on_train_end(self, summary: TrainingSummary) -> None:  # noqa: ARG002
        """Remove the bar."""
        self._close()

    def on_failure(self, error: BaseException) -> None:  # noqa: ARG002
        """Remove the bar."""
        self._close()

    def _show_bar(self, description: str, images: int) -> None:
        self._close()
        self._bar = self._stack.enter_context(progress(description, images, "images"))

    def _close(self) -> None:
        self._stack.close()
        self._bar = None

    def _announce(self, epoch_seconds: float) -> None:
        left = epoch_seconds * self._epochs_left(self._epoch)
        if left > LONG_SECONDS:
            fewer = max(1, int(self._epochs * LONG_SECONDS / left / 2))
            note(
                f"This will take about {duration_text(left)}; for less, use --epochs {fewer} or a smaller --image-size"
            )


def resume_command(run: Path) -> str:
    """Return the command that resumes a run in as many processes as this one is part of."""
    launch, arguments = launched(), f"train --resume {quoted(str(run))}"
    if launch.count == 1:
        return f"fgvc {arguments}"
    machines = launch.count // launch.local_count
    if started_by_fgvc():
        where = f" --nodes {machines} --rendezvous HOST:PORT" if machines > 1 else ""
        return f"fgvc {arguments} --devices {launch.local_count}{where}"
    nodes = f"--nnodes {machines} " if machines > 1 else ""
    return f"torchrun {nodes}--nproc-per-node {launch.local_count} -m fgvc_cli {arguments}"


def show_result(result: TrainingResult) -> None:
    """Print the metrics of a finished training, where the run is, and what to try next."""
    summary = result.summary
    table = Table(box=None, header_style="bold")
    for title in ("split", "images", "top-1", "top-5", "macro F1"):
        table.add_column(title, justify="left" if title == "split" else "right")
    trained = "train" if isinstance(result.job.classifier.head, FittedHead) else "train (augmented)"
    rows = (("val (probe)", summary.start), (trained, summary.train), ("val", summary.val), ("test", summary.test))
    for label, row in rows:
        if row is not None:
            macro = row.macro_f1 if isinstance(row, SplitMetrics) else None
            table.add_row(label, str(row.images), percent(row.top1), percent(row.top5), percent(macro))
    if table.row_count:  # without epochs and a test split nothing was scored
        out().print(table)
    for line in closing_lines(result):
        out().print(line, soft_wrap=True)


def closing_lines(result: TrainingResult) -> list[str]:
    """Return how the result compares with chance, the run folder, and the commands most users need next."""
    summary, path = result.summary, quoted(str(result.run.path))
    lines = []
    split, row = ("test", summary.test) if summary.test is not None else ("val", summary.val)
    if row is not None and row.top1 is not None:
        weights = f"weights of epoch {summary.best_epoch} of {summary.epochs}" if summary.epochs else "not trained here"
        if summary.epochs and not summary.best_epoch:
            weights = "the probe: no epoch is better on validation data"
        if summary.average is not None and summary.average.saved:
            averaged = summary.average.epochs
            weights = f"average of the last {averaged} epochs" if averaged > 1 else "weights of the last epoch"
        if isinstance(result.job.classifier.head, FittedHead):
            weights = "fitted to frozen features" if summary.epochs else "not fitted here"
        lines.append(
            f"{split} top-1 {percent(row.top1)} where chance is {percent(summary.chance)}: "
            f"{row.top1 / summary.chance:.1f} times chance ({weights})."
        )
    if result.job.config.train.weights == "none" and not isinstance(result.job.classifier.head, FittedHead):
        lines.append("Trained from scratch; pretrained weights (--weights imagenet) usually do much better.")
    if summary.unreadable:
        lines.append(f"{counted(len(summary.unreadable), 'image')} could not be read; see summary.json.")
    lines.append(f"run: {result.run.path}")
    commands = [f"fgvc evaluate {path}"]
    if result.samples and _can_explain(result):
        commands.insert(0, f"fgvc explain {quoted(str(result.samples[0]))} --run {path} --occlude")
    return lines + next_lines(commands)


def _can_explain(result: TrainingResult) -> bool:
    """Check whether the default explainer can explain the classifier."""
    try:
        make_explainer(DEFAULT_EXPLAINER, {}, get_registry()).check(result.job.classifier)
    except FgvcError:
        return False
    return True


def _origins(splits: Sequence[Split]) -> str:
    """Return where the splits come from: once if it is the same for all, else by split."""
    origins = {s.origin for s in splits}
    if len(origins) == 1:
        return f", {origins.pop()}" if splits[0].origin else ""
    return "".join(f"; {s.name} {s.origin}" for s in splits if s.origin)


def _running_text(metrics: Mapping[str, float]) -> str:
    """Return the metrics of the epoch so far; a head need not give scores, but always has an objective."""
    if "top1" not in metrics:
        return f"objective {metrics['objective']:.3f}"
    return f"loss {metrics['loss']:.3f}, top-1 {100 * metrics['top1']:.1f} %"


def _metrics_text(row: TrainMetrics | ValMetrics) -> str:
    if row.top1 is None:
        return f"objective {row.objectives['objective']:.3f}" if isinstance(row, TrainMetrics) else "n/a"
    top5 = "" if row.top5 is None else f" / {100 * row.top5:5.1f}"
    loss = "  n/a" if row.loss is None else f"{row.loss:.3f}"
    return f"loss {loss} top-1{' / 5' if top5 else ''} {100 * row.top1:5.1f}{top5} %"
