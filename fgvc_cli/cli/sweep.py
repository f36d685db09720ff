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
from fgvc_cli.cli.common_options import component_names, option
from fgvc_cli.cli.lazy import QuickCommand, QuickGroup
from fgvc_cli.cli.sweep_status import EXAMPLE as STATUS_EXAMPLE
from fgvc_cli.cli.sweep_status import status
from fgvc_cli.cli.tables import figure_table
from fgvc_cli.config.train_options import MAX_SEED
from fgvc_cli.errors import UsageError
from fgvc_cli.formatting import counted, duration_text, percent, quoted

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

    from fgvc_cli.experiments.claims import Record
    from fgvc_cli.experiments.study import PlannedRun
    from fgvc_cli.experiments.sweep import Sweep
    from fgvc_cli.runs.results import TrainingSummary

LINE_SECONDS = 60.0
"""Time between two progress lines where there is no terminal."""


class SweepDisplay:
    """Shows the progress of a sweep; a `fgvc_cli.experiments.scheduler.SweepCallback`.

    As a context, it removes its bars at the end.
    """

    def __init__(self) -> None:
        self._done = self._total = 0
        self._bars: _Bars | None = None
        self._due = time.monotonic() + LINE_SECONDS

    def __enter__(self) -> SweepDisplay:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._bars is not None:
            self._bars.close()

    def planned(self, done: int, total: int) -> None:
        """Print the number of runs that have ended, and show the bars."""
        self._done, self._total = done, total
        if done:
            console.note(f"{done} of {total} runs are already done")
        if console.has_bars() and done < total:
            self._bars = _Bars(done, total)

    def started(self, run: PlannedRun, epochs: int, done: int) -> None:
        """Print that a run resumes."""
        if done:
            console.note(f"{run.title}: resuming after epoch {done} of {epochs}")

    def progressed(self, active: Mapping[str, Record], left: float | None) -> None:
        """Update the bars; without a terminal, print a line every minute."""
        if self._bars is not None:
            self._bars.update(self._done, active, left)
        elif time.monotonic() >= self._due and active:
            self._due = time.monotonic() + LINE_SECONDS
            texts = "; ".join(f"{title}: {each.text}" for title, each in active.items())
            console.note(f"study: {self._done} of {self._total} runs, {_left(left)}{texts}")

    def finished(self, run: PlannedRun, summary: TrainingSummary, seconds: float, left: float | None) -> None:
        """Print the result of a run."""
        self._done += 1
        split, metrics = ("test", summary.test) if summary.test is not None else ("val", summary.val)
        top1 = "" if metrics is None else f"   {split} top-1 {percent(metrics.top1)}"
        rest = f"   {_left(left)}".rstrip(", ") if self._done < self._total else ""
        console.note(f"run {self._done}/{self._total}   {run.title}{top1}   {duration_text(seconds)}{rest}")

    def pruned(self, run: PlannedRun, epochs: int) -> None:
        """Print after which epoch a trial was pruned."""
        self._done += 1
        console.note(f"run {self._done}/{self._total}   {run.title}   pruned after epoch {epochs}")

    def failed(self, run: PlannedRun, reason: str) -> None:
        """Print immediately why a run failed: the user may want to stop and fix it."""
        self._done += 1
        console.warn(f"run {self._done}/{self._total}   {run.title} failed: {reason}")


def _left(seconds: float | None) -> str:
    return "" if seconds is None else f"{duration_text(seconds)} left, "


class _Bars:
    """One bar for the study and one for each active run."""

    def __init__(self, done: int, total: int) -> None:
        self._display = _display()
        self._display.start()
        count = f"{done}/{total} runs"
        self._study = self._display.add_task("study", total=total, completed=done, count=count, text="")
        self._total = total
        self._runs: dict[str, TaskID] = {}

    def update(self, done: int, active: Mapping[str, Record], left: float | None) -> None:
        for ended in self._runs.keys() - active.keys():
            self._display.remove_task(self._runs.pop(ended))
        for title, progress in active.items():
            if title not in self._runs:
                self._runs[title] = self._display.add_task(title, total=1.0, count="", text="")
            self._display.update(self._runs[title], completed=progress.fraction, text=progress.text)
        completed = done + sum(progress.fraction for progress in active.values())
        count, text = f"{done}/{self._total} runs", _left(left).rstrip(", ")
        self._display.update(self._study, completed=completed, count=count, text=text)

    def close(self) -> None:
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


def list_runs(sweep: Sweep) -> None:
    """Print a line for each run, with its state."""
    records = sweep.listing()
    table = figure_table(*records[0])
    for record in records:
        table.add_row(*map(str, record.values()))
    console.out().print(table)


EXAMPLE = "fgvc sweep --backbone resnet50 --head linear --head pim --optimizer sgd --optimizer sam --data photos/"
COMBINED, SEARCH, SHARED, STUDY = "Combinations", "Search", "Settings of all runs", "Study"

sweep = typer.Typer(
    add_completion=False,
    cls=QuickGroup,
    rich_markup_mode="rich",
    invoke_without_command=True,
    epilog=f"Example: {EXAMPLE}",
)
sweep.command("status", cls=QuickCommand, epilog=f"Example: {STATUS_EXAMPLE}")(status)


@sweep.callback()
def train(
    context: typer.Context,
    backbone: Annotated[list[str] | None, common.named_option("backbone", COMBINED, "by recipe")] = None,
    head: Annotated[list[str] | None, common.named_option("head", COMBINED, "by recipe")] = None,
    optimizer: Annotated[list[str] | None, common.named_option("optimizer", COMBINED, "by recipe")] = None,
    seeds: Annotated[
        int | None, option(COMBINED, "Number of seeds per combination.", default="1", min=1, max=1000)
    ] = None,
    seed: Annotated[int | None, option(COMBINED, "First seed.", default="by recipe", min=0, max=MAX_SEED)] = None,
    folds: Annotated[
        int | None,
        option(
            COMBINED,
            "Folds of a cross-validation, a run for each.",
            default=False,
            min=2,
            max=1000,
        ),
    ] = None,
    config: Annotated[
        Path | None, option(COMBINED, "Study file; component names select among its combinations.")
    ] = None,
    study: Annotated[
        str | None,
        option(
            COMBINED,
            "Registered study, by name (fgvc list-plugins --kind study).",
            default=False,
            autocompletion=component_names("study"),
        ),
    ] = None,
    search: Annotated[
        bool, option(SEARCH, "Search the spaces of the study file, then train the best settings.", "--search")
    ] = False,
    trials: Annotated[int | None, option(SEARCH, "Number of trials.", default="20", min=1, max=100_000)] = None,
    sampler: Annotated[
        str | None, option(SEARCH, "How settings are drawn.", default="tpe", metavar="tpe|random")
    ] = None,
    pruner: Annotated[
        str | None, option(SEARCH, "When to stop poor trials.", default="none", metavar="none|median|hyperband")
    ] = None,
    dataset: Annotated[str | None, common.trained_dataset_option(SHARED)] = None,
    data: Annotated[Path | None, common.trained_data_option(SHARED)] = None,
    group_by: Annotated[
        str | None, common.setting("train.group_by", SHARED, shown_default=False, metavar="COLUMN")
    ] = None,
    weights: Annotated[str | None, common.setting("train.weights", SHARED, "auto")] = None,
    partial_weights: Annotated[bool, common.setting("train.partial_weights", SHARED, False)] = False,
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
    launcher: Annotated[
        str, common.component_option("launcher", STUDY, "What trains the runs, by name; local is this machine.", True)
    ] = "local",
    jobs: Annotated[
        int | None,
        option(
            STUDY,
            "Runs to train at a time, each on its own GPU.",
            default="1, or with another launcher as many as there is room for",
            min=1,
            max=4096,
        ),
    ] = None,
    out: Annotated[Path | None, option(STUDY, "Folder of the study.", default="a new one under runs/")] = None,
    resume: Annotated[Path | None, option(STUDY, "Study folder to resume, however it ended.")] = None,
    retry_failed: Annotated[bool, option(STUDY, "With --resume: retry failed runs.", "--retry-failed")] = False,
    allow_changed_data: Annotated[
        bool, common.allow_changed_data_option(STUDY, "With --resume: train the rest even if the data changed.")
    ] = False,
    dry_run: Annotated[bool, option(STUDY, "List the runs without training.", "--dry-run")] = False,
    offline: Annotated[bool, option(STUDY, "Forbid downloads.", "--offline")] = False,
    json: Annotated[
        bool, option(STUDY, "Print the comparison, or with --dry-run the runs, as JSON.", "--json")
    ] = False,
) -> None:
    """Train every combination as an ordinary run in one study folder, then compare them.

    A run that fails does not stop the others; the table lists it.

    Exit code 3: some runs failed; 130: interrupted, resume with --resume.

    """
    if context.invoked_subcommand is not None:
        if others := common.given_options(context):
            raise UsageError(f"fgvc sweep {context.invoked_subcommand} does not take {', '.join(others)}")
        return
    from fgvc_cli.cli.compare import show_comparison, show_files
    from fgvc_cli.errors import FgvcError
    from fgvc_cli.experiments.compare import compare_selection, evaluator, select_runs
    from fgvc_cli.experiments.comparison_files import write_comparison
    from fgvc_cli.experiments.launching import LaunchRequest, split_settings
    from fgvc_cli.experiments.planning import SweepRequest
    from fgvc_cli.experiments.scheduler import RunOptions
    from fgvc_cli.experiments.search import Search, write_trials
    from fgvc_cli.experiments.sweep import new_sweep, resume_sweep
    from fgvc_cli.launch import launched
    from fgvc_cli.registry import get_registry

    if launched().count > 1:
        raise UsageError("fgvc sweep starts its own processes: run it without torchrun, with --jobs N for N GPUs")
    registry = get_registry()
    settings, launcher_settings = split_settings(set_ or [])
    if resume is not None:
        kept = ("resume", "retry_failed", "allow_changed_data", "launcher", "jobs", "dry_run", "offline", "json")
        if others := common.given_options(context, kept if settings else (*kept, "set_")):
            raise UsageError(f"--resume keeps the settings of the study; leave out {', '.join(others)}")
        planned = resume_sweep(resume, registry)
    elif retry_failed or allow_changed_data:
        raise UsageError(f"{'--retry-failed' if retry_failed else '--allow-changed-data'} needs --resume STUDY")
    else:
        options: dict[str, dict[str, Any]] = {
            "dataset": {"name": dataset, "data": None if data is None else str(data)},
            "train": {
                "group_by": group_by,
                "weights": weights,
                "partial_weights": partial_weights or None,
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
        given = {"trials": trials, "sampler": sampler, "pruner": pruner}
        of_search = {name: value for name, value in given.items() if value is not None}
        searched = of_search if search or of_search else None
        request = SweepRequest(names, options, settings, recipe, seeds, seed, config, study, folds, searched)
        planned = new_sweep(request, registry, out)
    for line in planned.changed_settings():
        console.warn(line)
    if dry_run:
        console.print_json(planned.listing()) if json else list_runs(planned)
        return
    connected = planned.connect(LaunchRequest(launcher, launcher_settings, jobs))
    for line in planned.check_data(allow_changed_data):
        console.note(line)
    folder = planned.prepare_folder(out)
    combinations, numbers = len(planned.study.combinations), planned.study.seeds
    if planned.study.search is not None:
        how, seeds_text = planned.study.search, ", ".join(map(str, planned.study.winner_seeds))
        console.note(
            f"search     {counted(how.trials, 'trial')}, sampler {how.sampler}, pruner {how.pruner}, then the best "
            f"settings with seed{'s' if len(numbers) != 1 else ''} {seeds_text}; study folder {folder.path}"
        )
    else:
        console.note(
            f"runs       {len(planned.study.runs())}: {counted(combinations, 'combination')}, "
            f"seed{'s' if len(numbers) != 1 else ''} {', '.join(map(str, numbers))}"
            f"{f', {planned.study.folds} folds' if planned.study.folds else ''}; study folder {folder.path}"
        )
    again = f"fgvc sweep --resume {quoted(str(folder.path))}"
    try:
        with SweepDisplay() as display:
            result = planned.train(folder, connected, display, RunOptions(offline, allow_changed_data), retry_failed)
    except FgvcError:
        console.note(f"to resume: {again}{' --retry-failed' if folder.failures() else ''}")
        raise
    comparison = compare_selection(select_runs([folder.path]), None, evaluator())
    written = write_comparison(folder.comparison, comparison)
    if planned.study.search is not None:
        searched_in = Search(planned.study, folder)
        written.append(write_trials(folder.comparison, searched_in))
        console.note(searched_in.note())
    if json:
        console.print_json(comparison.as_json())
    else:
        show_comparison(comparison)
        show_files(written, folder.path)
    if result.failed:
        console.note(f"to retry the failed runs: {again} --retry-failed")
        raise typer.Exit(3)
