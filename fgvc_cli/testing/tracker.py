"""Contract checks of trackers."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fgvc_cli.contracts import RunStart, Tracker
from fgvc_cli.errors import FgvcError
from fgvc_cli.testing.check import Checks, NotApplicable, expect, expect_lines, some
from fgvc_cli.testing.component import ComponentUnderTest

CONFIG: dict[str, Any] = {
    "fgvc": "0.1.0",
    "recipe": "scratch",
    "backbone": {"name": "fgvc-cli:timm/test_resnet", "maps": "stages"},
    "head": {"name": "fgvc-cli:linear", "dropout": 0.0},
    "optimizer": {"name": "fgvc-cli:sgd", "lr": 0.003, "head_lr": "none"},
    "dataset": {"name": "fgvc-cli:folder", "data": "photos"},
    "train": {"epochs": 2, "batch_size": 16, "seed": 0, "mean": "none"},
    "augment": {"flip": True, "erase": 0.0},
}
"""Settings as in `config.toml`."""


def metrics_of(epoch: int) -> dict[str, Any]:
    """Return a line of `metrics.jsonl`."""
    return {
        "epoch": epoch,
        "train": {"objective": 1.2 / epoch, "objective.parts": 0.2, "loss": 1.1 / epoch, "top1": 0.5, "images": 48},
        "val": {"loss": 0.9, "top1": 0.6, "images": 12},
        "rates": {"backbone": 0.003, "head": 0.003},
        "processes": 1,
        "images_per_second": 123.4,
        "seconds": 2.5,
    }


def summary_of() -> dict[str, Any]:
    """Return the content of `summary.json`, as far as it matters to trackers."""
    figures = {"images": 12, "failed": 0, "classes": 3, "top1": 0.6, "top5": None, "loss": 0.8, "macro": {"f1": 0.58}}
    return {
        "run": "run",
        "classes": 3,
        "chance": 1 / 3,
        "dataset": {"name": "folder"},
        "splits": {"train": {"images": 48, "origin": ""}},
        "components": {kind: {"name": CONFIG[kind]["name"]} for kind in ("backbone", "head", "optimizer", "dataset")},
        "recipe": "scratch",
        "weights": "Random weights: training from scratch.",
        "epochs": 2,
        "best_epoch": 2,
        "stopped_early": False,
        "train": metrics_of(2)["train"],
        "val": metrics_of(2)["val"],
        "test": figures,
        "parameters": {"backbone": 1000, "head": 10, "total": 1010},
        "seconds": 5.0,
        "images_per_second": 123.4,
        "unreadable": {},
        "device": "cpu",
        "processes": 1,
        "precision": "fp32",
        "seed": 0,
        "versions": {},
    }


@contextmanager
def tiny_run() -> Iterator[RunStart]:
    """Yield the start of a run in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="fgvc-check-") as folder:
        run = Path(folder) / "run"
        run.mkdir()
        (run / "config.toml").write_text("recipe = 'scratch'\n", "utf-8")
        yield RunStart(run, copy.deepcopy(CONFIG), ("ant", "bee", "cat"), resumed=False)


@dataclass(frozen=True)
class TrackerUnderTest:
    """A tracker."""

    subject: ComponentUnderTest

    def make(self) -> Tracker:
        """Build it.

        Raises:
            NotApplicable: the package that it depends on is not installed.
        """
        try:
            tracker: Tracker = self.subject.make(Tracker, options=self.subject.options())
        except FgvcError as error:
            raise NotApplicable(str(error)) from None
        return tracker


CHECKS: Checks[TrackerUnderTest] = Checks(TrackerUnderTest)


@CHECKS("logs a complete run", "A tracker that raises is warned about once and misses that event.")
def complete_run(tracker: TrackerUnderTest) -> None:
    """The start, two epochs and the end raise nothing; notes() returns a list of lines."""
    with tiny_run() as run:
        instance = tracker.make()
        instance.started(run)
        notes = instance.notes()
        for epoch in (1, 2):
            instance.epoch_finished(metrics_of(epoch))
        instance.finished(summary_of())
    expect_lines(notes)


@CHECKS("accepts missing metrics", "Metrics are None without a validation or test split.")
def missing_metrics(tracker: TrackerUnderTest) -> None:
    """Metrics that are None raise nothing."""
    with tiny_run() as run:
        instance = tracker.make()
        instance.started(run)
        instance.epoch_finished({**metrics_of(1), "val": None, "train": {"objective": None, "images": 48}})
        instance.finished({**summary_of(), "val": None, "test": None})


@CHECKS("handles interruption and resuming", "finished(None) is called after Ctrl-C and errors.")
def interrupted(tracker: TrackerUnderTest) -> None:
    """finished(None), after an epoch or before the first, and a resumed run raise nothing."""
    with tiny_run() as run:
        for epochs in (0, 1):
            instance = tracker.make()
            instance.started(run)
            for epoch in range(1, epochs + 1):
                instance.epoch_finished(metrics_of(epoch))
            instance.finished(None)
        again = tracker.make()
        again.started(RunStart(run.folder, CONFIG, run.class_names, resumed=True, epochs_done=1))
        again.epoch_finished(metrics_of(2))
        again.finished(summary_of())


@CHECKS("writes nothing before started()", "It is created before it is certain that training can start.")
def no_early_writes(tracker: TrackerUnderTest) -> None:
    """The constructor writes nothing into the current folder."""
    with tiny_run() as run, chdir(run.folder):
        before = _files(run.folder)
        tracker.make()
        new = sorted(_files(run.folder) - before)
    expect(not new, "no files before started()", f"it writes {some(new)}", "open files in started()")


@CHECKS("writes only to its own folder", "Everything else in a run folder belongs to fgvc.")
def own_folder(tracker: TrackerUnderTest) -> None:
    """In the run folder it writes only below trackers/ and changes no other file."""
    with tiny_run() as run, chdir(run.folder.parent):
        instance = tracker.make()
        before, known = (run.folder / "config.toml").read_bytes(), _files(run.folder)
        instance.started(run)
        instance.epoch_finished(metrics_of(1))
        instance.finished(summary_of())
        new = sorted(name for name in _files(run.folder) - known if not name.startswith("trackers/"))
        same = (run.folder / "config.toml").read_bytes() == before
    fix = "write into run.own_folder(NAME)"
    expect(not new, "files below trackers/ only", f"it writes {some(new)}", fix)
    expect(same, "an unchanged config.toml", "it is changed", fix)


@CHECKS("does not modify its arguments", "Other trackers and fgvc's own files get the same objects.")
def unchanged_arguments(tracker: TrackerUnderTest) -> None:
    """Settings, metrics and summary are unchanged afterwards."""
    given = {"config": copy.deepcopy(CONFIG), "metrics": metrics_of(1), "summary": summary_of()}
    before = copy.deepcopy(given)
    with tiny_run() as run:
        instance = tracker.make()
        instance.started(RunStart(run.folder, given["config"], run.class_names, resumed=False))
        instance.epoch_finished(given["metrics"])
        instance.finished(given["summary"])
    changed = [name for name, value in given.items() if value != before[name]]
    expect(not changed, "unchanged arguments", f"it changes the {some(changed)}", "copy before changing")


def _files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
