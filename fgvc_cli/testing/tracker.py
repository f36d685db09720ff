"""Contract checks of trackers."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path

from fgvc_cli.contracts import RunStart, Tracker
from fgvc_cli.errors import FgvcError
from fgvc_cli.testing.check import Check, Checks, NotApplicable, expect, some
from fgvc_cli.testing.subject import Subject
from fgvc_cli.testing.tiny import CONFIG, metrics_of, summary_of, training_about_to_start

HEARING: Checks[TrackerSubject] = Checks()


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


def checks(subject: Subject) -> Iterator[Check]:
    """Return the checks of a tracker."""
    yield from HEARING.of(TrackerSubject(subject))


@HEARING("it hears a training", "A tracker that raises is warned of once, and its curves have holes.")
def hears(tracker: TrackerSubject) -> None:
    """Told of the start, of epochs and of the end, it raises nothing; its notes are lines."""
    with training_about_to_start() as run:
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
    with training_about_to_start() as run:
        made = tracker.make()
        made.started(run)
        made.epoch_finished({**metrics_of(1), "val": None, "train": {"objective": None, "images": 48}})
        made.finished({**summary_of(), "val": None, "test": None})


@HEARING("it hears of an end that is none", "Ctrl-C and errors end a training too: summary is None then.")
def interrupted(tracker: TrackerSubject) -> None:
    """It takes finished(None), after an epoch or before the first; and a training that goes on afterwards."""
    with training_about_to_start() as run:
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
    with training_about_to_start() as run, chdir(run.folder):
        before = _files(run.folder)
        tracker.make()
        new = sorted(_files(run.folder) - before)
    expect(not new, "nothing to be written before started()", f"{some(new)} appears", "open files in started()")


@HEARING("it keeps to its own folder", "A run folder is read again by fgvc: what it holds is the host's.")
def own_folder(tracker: TrackerSubject) -> None:
    """In the run folder it writes below trackers/ only, and leaves what is there alone."""
    with training_about_to_start() as run, chdir(run.folder.parent):
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
    with training_about_to_start() as run:
        made = tracker.make()
        made.started(RunStart(run.folder, told["config"], run.class_names, resumed=False))
        made.epoch_finished(told["metrics"])
        made.finished(told["summary"])
    changed = [name for name, value in told.items() if value != before[name]]
    expect(not changed, "what it is told as it was", f"it changes the {some(changed)}", "copy before changing")


def _files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
