"""What a training shows a person: four lines at the start, a bar, a line an epoch, a table at the end."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from fgvc_cli.devices import describe_device
from fgvc_cli.display.console import note, out, progress
from fgvc_cli.display.evaluation_tables import percent, quoted
from fgvc_cli.display.progress import Progress, duration_text

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
        times = f" x {train.accumulate}" if train.accumulate > 1 else ""
        if job.ranks.count > 1:
            images = train.batch_size * train.accumulate * job.ranks.count
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
