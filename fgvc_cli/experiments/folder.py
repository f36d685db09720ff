"""A study on disk: its file, its runs and their state."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from fgvc_cli import files
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.experiments.study import (
    COMPARISON,
    FAILURES_FILE,
    LOGS,
    RUNS,
    STUDY_FILE,
    PlannedRun,
    Study,
    as_toml,
    is_study,
)
from fgvc_cli.locks import FileLock, Locked
from fgvc_cli.runs.folder import Run, new_folder


@dataclass(frozen=True)
class FailedRun:
    """A run that cannot be trained.

    Attributes:
        name: of its folder.
        backbone, head, optimizer: what it combines.
        seed: its seed.
        reason: in one line.
    """

    name: str
    backbone: str
    head: str
    optimizer: str
    seed: int
    reason: str


def read_failures(study: Path) -> dict[str, FailedRun]:
    """Return the failed runs of a study, by name.

    Raises:
        FgvcError: the file that lists them is damaged.
    """
    file = study / FAILURES_FILE
    if not file.is_file():
        return {}
    try:
        return {each["name"]: FailedRun(**each) for each in files.read_json(file)}
    except (FgvcError, TypeError, KeyError) as error:
        raise FgvcError(f"{file} is damaged ({error}): delete it, and failed runs are tried again.") from error


def write_failures(study: Path, failures: Mapping[str, FailedRun]) -> None:
    """Keep the failed runs of a study."""
    files.write_json(study / FAILURES_FILE, [asdict(each) for each in failures.values()])


State = Literal["finished", "failed", "begun", "waiting"]
"""What became of a run: "begun" ones were interrupted or killed and can go on, "waiting" ones have not begun."""


@dataclass(frozen=True)
class StudyFolder:
    """The folder of a study.

    Attributes:
        path: of the folder.
    """

    path: Path

    @property
    def study_file(self) -> Path:
        """What the study is."""
        return self.path / STUDY_FILE

    @property
    def resuming(self) -> str:
        """The command that goes on with it, ready to paste."""
        return f"fgvc sweep --resume {shlex.quote(str(self.path))}"

    @property
    def comparison(self) -> Path:
        """Where its comparison is kept."""
        return self.path / COMPARISON

    def run(self, name: str) -> Run:
        """Return the folder of a run."""
        return Run(self.path / RUNS / name)

    def log(self, name: str) -> Path:
        """Return the file that holds what a run had to say while it was trained."""
        return self.path / LOGS / f"{name}.log"

    def failures(self) -> dict[str, FailedRun]:
        """Return the runs that failed, by name."""
        return read_failures(self.path)

    def note_failure(self, run: PlannedRun, reason: str) -> None:
        """Keep why a run failed."""
        names = {str(kind): name for kind, name in run.combination.components.items()}
        failed = FailedRun(run.name, **names, seed=run.seed, reason=reason)
        write_failures(self.path, {**self.failures(), run.name: failed})

    def forget_failure(self, run: PlannedRun) -> None:
        """Forget that a run failed, for it is tried again."""
        failures = self.failures()
        if failures.pop(run.name, None) is not None:
            write_failures(self.path, failures)

    def state(self, name: str) -> State:
        """Say what became of a run."""
        run = self.run(name)
        if run.finished:
            return "finished"
        if name in self.failures():
            return "failed"
        return "begun" if run.config_file.is_file() else "waiting"

    @contextmanager
    def worked_on(self) -> Iterator[None]:
        """Keep other processes from working on the study meanwhile.

        Raises:
            FgvcError: one does already.
        """
        try:
            lock = FileLock(self.path / ".lock", shared=False)
        except Locked as error:
            raise FgvcError(f"Another fgvc sweep is at work on {self.path}: let it end, or stop it first.") from error
        except OSError:  # a file system without locks, or without room: then what is written next says so
            yield
            return
        try:
            yield
        finally:
            lock.close()


def find_study(path: Path) -> StudyFolder:
    """Return the study at a path: its folder, or the study file in it.

    Raises:
        FgvcError: there is none.
    """
    folder = path.parent if path.name == STUDY_FILE else path
    if not is_study(folder):
        missing = f"has no {STUDY_FILE}" if folder.is_dir() else "there is no such folder"
        raise FgvcError(f"{path}: {missing}. Name the folder of a study, as fgvc sweep makes one.")
    return StudyFolder(folder)


def check_out(out: Path) -> None:
    """Say early whether a new study may take that folder: a new or empty one.

    Raises:
        UsageError: it may not.
    """
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        on = f", or go on with the study in it: {StudyFolder(out).resuming}" if is_study(out) else ""
        raise UsageError(f"--out {out} exists: choose another folder{on}.")


def new_study(study: Study, out: Path | None, label: str) -> StudyFolder:
    """Make the folder of a new study, with its file in it.

    Args:
        study: what it is.
        out: where `--out` puts it; None: under the runs folder, named by the time and `label`.
        label: what it is of.

    Raises:
        UsageError: something is at `out`.
        FgvcError: the folder cannot be made.
    """
    if out is not None:
        check_out(out)
    folder = StudyFolder(new_folder(out, "study", label))
    files.write_text(folder.study_file, as_toml(study))
    return folder
