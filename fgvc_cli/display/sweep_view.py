"""How far a study is: a bar for all of it, one for each run at work, and a line for each that ends."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from fgvc_cli.display import console
from fgvc_cli.display.evaluation_tables import percent
from fgvc_cli.display.progress import duration_text

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

    from fgvc_cli.studies.events import Begun, Moved
    from fgvc_cli.studies.folder import StudyFolder
    from fgvc_cli.studies.study import PlannedRun, Study
    from fgvc_cli.studies.sweeping import Sweep

LINE_SECONDS = 60.0
"""Time between two plain lines, where there is no terminal."""


class SweepView:
    """Shows a study as it goes; see `fgvc_cli.studies.running.View` for when each method is called.

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

    def finished(self, run: PlannedRun, summary: dict[str, Any], seconds: float, left: float | None) -> None:
        """Print the run's line."""
        self._done += 1
        split = next((name for name in ("test", "val") if summary[name] is not None), None)
        top1 = "" if split is None else f"   {split} top-1 {percent(summary[split].get('top1'))}"
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
