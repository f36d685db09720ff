"""What every tracker must keep."""

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
from fgvc_cli.testing.check import Check, Checks, NotApplicable, expect, some
from fgvc_cli.testing.subject import Subject

HEARING: Checks[TrackerSubject] = Checks()

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
"""Settings as `config.toml` has them."""


@dataclass(frozen=True)
class TrackerSubject:
    """A tracker, and a training that never was, for it to hear of."""

    subject: Subject

    def make(self) -> Tracker:
        """Build it.

        Raises:
            NotApplicable: the package that it stands on is not installed.
        """
        try:
            tracker: Tracker = self.subject.make(Tracker, options=self.subject.options())
        except FgvcError as error:
            raise NotApplicable(str(error)) from None
        return tracker


def checks(subject: Subject, partners: bool) -> Iterator[Check]:  # noqa: ARG001
    """Return the checks of a tracker."""
    yield from HEARING.of(TrackerSubject(subject))


@HEARING("it hears a training", "A tracker that raises is warned of once, and its curves have holes.")
def hears(tracker: TrackerSubject) -> None:
    """Told of the start, of epochs and of the end, it raises nothing; its notes are lines."""
    with _run() as run:
        made = tracker.make()
        made.started(run)
        notes = made.notes()
        for epoch in (1, 2):
            made.epoch_finished(metrics_of(epoch))
        made.finished(summary_of())
    fits = isinstance(notes, list) and all(isinstance(line, str) and "\n" not in line for line in notes)
    expect(fits, "a list of lines from notes()", f"it returns {notes!r}", "return strings without line breaks")


@HEARING("it hears of one without validation", "Without a validation split the figures of one are null.")
def hears_of_little(tracker: TrackerSubject) -> None:
    """Figures that are not there (null) raise nothing."""
    with _run() as run:
        made = tracker.make()
        made.started(run)
        made.epoch_finished({**metrics_of(1), "val": None, "train": {"objective": None, "images": 48}})
        made.finished({**summary_of(), "val": None, "test": None})


@HEARING("it hears of an end that is none", "Ctrl-C and errors end a training too: summary is None then.")
def interrupted(tracker: TrackerSubject) -> None:
    """It takes finished(None), after an epoch or before the first; and a training that goes on afterwards."""
    with _run() as run:
        for epochs in (0, 1):
            made = tracker.make()
            made.started(run)
            for epoch in range(1, epochs + 1):
                made.epoch_finished(metrics_of(epoch))
            made.finished(None)
        again = tracker.make()
        again.started(RunStart(run.folder, CONFIG, run.class_names, resumed=True, epochs_done=1))
        again.epoch_finished(metrics_of(2))
        again.finished(summary_of())


@HEARING("it begins with the training", "It is made before it is known whether a training can begin at all.")
def makes_nothing_early(tracker: TrackerSubject) -> None:
    """Being made, it writes nothing into the folder it is made in."""
    with _run() as run, chdir(run.folder):
        before = _files(run.folder)
        tracker.make()
        new = sorted(_files(run.folder) - before)
    expect(not new, "nothing to be written before started()", f"{some(new)} appears", "open files in started()")


@HEARING("it keeps to its own folder", "A run folder is read again by fgvc: what it holds is the host's.")
def own_folder(tracker: TrackerSubject) -> None:
    """In the run folder it writes below trackers/ only, and leaves what is there alone."""
    with _run() as run, chdir(run.folder.parent):
        made = tracker.make()
        before = (run.folder / "config.toml").read_bytes()
        known = _files(run.folder)
        made.started(run)
        made.epoch_finished(metrics_of(1))
        made.finished(summary_of())
        new = sorted(name for name in _files(run.folder) - known if not name.startswith("trackers/"))
        kept = (run.folder / "config.toml").read_bytes() == before
    expect(not new, "files below trackers/ only", f"{some(new)} appears", "write into run.own_folder(NAME)")
    expect(kept, "config.toml as it was", "it is changed", "write into run.own_folder(NAME)")


@HEARING("it changes nothing it is told", "Other trackers and the host's own files are told the same.")
def changes_nothing(tracker: TrackerSubject) -> None:
    """Settings, metrics and summary are as they were afterwards."""
    told = {"config": copy.deepcopy(CONFIG), "metrics": metrics_of(1), "summary": summary_of()}
    before = copy.deepcopy(told)
    with _run() as run:
        made = tracker.make()
        made.started(RunStart(run.folder, told["config"], run.class_names, resumed=False))
        made.epoch_finished(told["metrics"])
        made.finished(told["summary"])
    changed = [name for name, value in told.items() if value != before[name]]
    expect(not changed, "what it is told as it was", f"it changes the {some(changed)}", "copy before changing")


def metrics_of(epoch: int) -> dict[str, Any]:
    """Return a line as `metrics.jsonl` has it."""
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
    """Return the end of a training as `summary.json` has it, the figures that a tracker may want."""
    figures = {"images": 12, "failed": 0, "classes": 3, "top1": 0.6, "top5": None, "loss": 0.8, "macro": {"f1": 0.58}}
    return {
        "run": "run",
        "classes": 3,
        "chance": 1 / 3,
        "components": {kind: {"name": CONFIG[kind]["name"]} for kind in ("backbone", "head", "optimizer", "dataset")},
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
        "precision": "fp32",
        "seed": 0,
    }


@contextmanager
def _run() -> Iterator[RunStart]:
    """Give a training that is about to start, in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="fgvc-check-") as folder:
        run = Path(folder) / "run"
        run.mkdir()
        (run / "config.toml").write_text("recipe = 'scratch'\n", "utf-8")
        yield RunStart(run, copy.deepcopy(CONFIG), ("ant", "bee", "cat"), resumed=False)


def _files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
