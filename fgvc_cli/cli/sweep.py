"""`fgvc sweep`: train every combination of a study."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fgvc_cli.cli import common_options as common
from fgvc_cli.cli import console
from fgvc_cli.cli.completion import component_names
from fgvc_cli.formatting import duration_text, percent

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

    from fgvc_cli.experiments.folder import StudyFolder
    from fgvc_cli.experiments.study import PlannedRun, Study
    from fgvc_cli.experiments.sweep import Sweep
    from fgvc_cli.experiments.worker import Begun, Moved
    from fgvc_cli.runs.results import TrainingSummary


LINE_SECONDS = 60.0
"""Time between two plain lines, where there is no terminal."""


class SweepView:
    """Shows a study as it goes; see `fgvc_cli.experiments.running.View` for when each method is called.

    It is a context: what it draws is gone when that ends.
    """

    def __init__(self) -> None:
        self._done = self._of = 0
        self._bars: _Bars | None = None
        self._due = time.monotonic() + LINE_SECONDS

    def __enter__(self) -> SweepView:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._bars is not None:
            self._bars.close()

    def planned(self, done: int, of: int) -> None:
        """Say how much there is to do, and put up the bars."""
        self._done, self._of = done, of
        if done:
            console.note(f"{done} of {of} runs are done already")
        if console.draws() and done < of:
            self._bars = _Bars(done, of)

    def begun(self, run: PlannedRun, event: Begun) -> None:
        """Say that a run goes on, if it was begun before."""
        if event.done:
            console.note(f"{run.title}: going on after epoch {event.done} of {event.epochs}")

    def moved(self, at_work: Mapping[str, Moved], left: float | None) -> None:
        """Move the bars; without a terminal, say now and then how far it is."""
        if self._bars is not None:
            self._bars.move(self._done, at_work, left)
        elif time.monotonic() >= self._due and at_work:
            self._due = time.monotonic() + LINE_SECONDS
            going = "; ".join(f"{title}: {each.text}" for title, each in at_work.items())
            console.note(f"study: {self._done} of {self._of} runs, {_left(left)}{going}")

    def finished(self, run: PlannedRun, summary: TrainingSummary, seconds: float, left: float | None) -> None:
        """Print the run's line."""
        self._done += 1
        split, row = ("test", summary.test) if summary.test is not None else ("val", summary.val)
        top1 = "" if row is None else f"   {split} top-1 {percent(row.top1)}"
        rest = f"   {_left(left)}".rstrip(", ") if self._done < self._of else ""
        console.note(f"run {self._done}/{self._of}   {run.title}{top1}   {duration_text(seconds)}{rest}")

    def failed(self, run: PlannedRun, reason: str) -> None:
        """Say at once what failed, for a person may want to stop and mend it."""
        self._done += 1
        console.warn(f"run {self._done}/{self._of}   {run.title} failed: {reason}")


def _left(seconds: float | None) -> str:
    return "" if seconds is None else f"{duration_text(seconds)} left, "


class _Bars:
    """The bars on a terminal."""

    def __init__(self, done: int, of: int) -> None:
        self._display = _display()
        self._display.start()
        self._study = self._display.add_task("study", total=of, completed=done, count=f"{done}/{of} runs", text="")
        self._of = of
        self._runs: dict[str, TaskID] = {}

    def move(self, done: int, at_work: Mapping[str, Moved], left: float | None) -> None:
        """Show how far all is: runs done, and the shares of those at work by title."""
        for gone in self._runs.keys() - at_work.keys():
            self._display.remove_task(self._runs.pop(gone))
        for title, moved in at_work.items():
            if title not in self._runs:
                self._runs[title] = self._display.add_task(title, total=1.0, count="", text="")
            self._display.update(self._runs[title], completed=moved.share, text=moved.text)
        share = done + sum(moved.share for moved in at_work.values())
        count, text = f"{done}/{self._of} runs", _left(left).rstrip(", ")
        self._display.update(self._study, completed=share, count=count, text=text)

    def close(self) -> None:
        """Take the bars down."""
        self._display.stop()


def _display() -> RichProgress:
    from rich.progress import BarColumn, Progress, TextColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=28),
        TextColumn("{task.fields[count]}", markup=False),
        TextColumn("{task.fields[text]}", style="cyan", markup=False),
        console=console.err(),
        transient=True,
    )


def announce(study: Study, folder: StudyFolder) -> None:
    """Say what will be trained, and where to."""
    count = len(study.combinations)
    combinations = f"{count} combination{'s' if count != 1 else ''}"
    seeds = f"seed{'s' if len(study.seeds) != 1 else ''} {', '.join(map(str, study.seeds))}"
    console.note(f"runs       {count * len(study.seeds)}: {combinations}, {seeds}; study folder {folder.path}")


def list_runs(sweep: Sweep) -> None:
    """Print a line for each run, with what became of it if the study was begun."""
    from rich.table import Table

    table = Table(box=None, header_style="bold", padding=(0, 3, 0, 0))
    lines = sweep.listed()
    for title in lines[0]:
        table.add_column(title, overflow="fold")
    for line in lines:
        table.add_row(*map(str, line.values()))
    console.out().print(table)


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
    weights: Annotated[str | None, common.setting("train.weights", SHARED, "auto")] = None,
    image_size: Annotated[int | None, common.setting("train.image_size", SHARED)] = None,
    epochs: Annotated[int | None, common.setting("train.epochs", SHARED)] = None,
    batch_size: Annotated[int | None, common.setting("train.batch_size", SHARED)] = None,
    recipe: Annotated[str | None, common.recipe_option(SHARED)] = None,
    set_: Annotated[
        list[str] | None,
        common.set_option(SHARED, "A setting, as kind.option=value; an option of a component applies where it exists."),
    ] = None,
    device: Annotated[str | None, common.setting("train.device", SHARED, "auto")] = None,
    precision: Annotated[str | None, common.setting("train.precision", SHARED, "auto")] = None,
    compile_: Annotated[bool, common.setting("train.compile", SHARED, False)] = False,
    workers: Annotated[int | None, common.setting("train.workers", SHARED, "-1")] = None,
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
    from fgvc_cli.cli import compare, console
    from fgvc_cli.experiments import compare as comparing
    from fgvc_cli.experiments import sweep as sweeping
    from fgvc_cli.experiments.planning import SweepRequest
    from fgvc_cli.launch import launched
    from fgvc_cli.registry import get_registry

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
        console.print_json(sweep.listed()) if json else list_runs(sweep)
        return
    for line in sweep.data_lines():
        console.note(line)
    folder = sweep.make_folder(out)
    announce(sweep.study, folder)
    with SweepView() as view:
        outcome = sweeping.train(sweep, folder, jobs, offline, retry_failed, registry, view)
    sweeping.refuse_if_all_failed(outcome, folder)
    compared = comparing.run(comparing.of_study(folder.path), None, comparing.evaluator())
    if json:
        console.print_json(compared.comparison.as_json())
    else:
        compare.show_comparison(compared.comparison, "top1", "none")
        compare.show_places(compared.written, folder.path)
    if outcome.failed:
        console.note(sweeping.retry_text(folder))
        raise typer.Exit(3)
