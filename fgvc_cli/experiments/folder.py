"""The folder of a study: its file, its runs, their logs and failures."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from fgvc_cli import files
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.experiments.claims import Claim, Record, latest
from fgvc_cli.experiments.study import PlannedRun, Study, run_title
from fgvc_cli.formatting import counted
from fgvc_cli.runs.folder import LOCK_FILE, RUNS, STUDY_FILE, Run, new_folder, training_lock

TRIAL = re.compile(r"trial-(\d{4,})-(.+)")
"""Names of the runs that are trials of a search: number and combination. All other names end in a seed."""

PRUNED = "pruned.json"
"""File in the folder of a trial that was pruned."""

State = Literal["finished", "failed", "started", "waiting"]
"""State of a run: a "started" one was interrupted or killed and can resume, a "waiting" one has not started."""


@dataclass(frozen=True)
class FailedRun:
    """A run that failed, with the reason in one line; the JSON form has these keys, but `fold` only if it has one."""

    name: str
    backbone: str
    head: str
    optimizer: str
    seed: int
    reason: str
    fold: int = 0

    @property
    def title(self) -> str:
        """The names of the components, the seed, and the fold."""
        return run_title(f"{self.backbone} + {self.head} + {self.optimizer}", self.seed, self.fold)

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {name: value for name, value in asdict(self).items() if name != "fold" or value}


@dataclass(frozen=True)
class StudyFolder:
    """The folder of a study, at `path`."""

    path: Path

    @property
    def exists(self) -> bool:
        """Whether the path is the folder of a study."""
        return self.study_file.is_file()

    @property
    def study_file(self) -> Path:
        """The TOML file that describes the study."""
        return self.path / STUDY_FILE

    @property
    def failures_file(self) -> Path:
        """The JSON file that listed the failed runs before there were claims."""
        return self.path / "failed.json"

    @property
    def claims(self) -> Path:
        """The folder of the claims to runs; see `fgvc_cli.experiments.claims`."""
        return self.path / "claims"

    @property
    def comparison(self) -> Path:
        """The folder of the study's comparison."""
        return self.path / "comparison"

    def run(self, name: str) -> Run:
        """Return the folder of a run."""
        return Run(self.path / RUNS / name)

    def runs(self) -> list[Run]:
        """Return the runs that have started, by name, including finished ones without settings; no trials."""
        return [run for run in self._started() if not TRIAL.match(run.name)]

    def trials(self) -> list[Run]:
        """Return the trials of a search that have started, by name."""
        return [run for run in self._started() if TRIAL.match(run.name)]

    def is_pruned(self, name: str) -> bool:
        """Return whether a run is a trial that was pruned."""
        return (self.run(name).path / PRUNED).is_file()

    @property
    def search_note(self) -> str:
        """How many trials the settings of its runs were chosen from; empty without a search."""
        trials = self.trials()
        if not trials:
            return ""
        pruned = sum(self.is_pruned(run.name) for run in trials)
        failed = sum(bool(TRIAL.match(name)) for name in self.failures())
        ended = ", ".join(f"{number} {what}" for number, what in ((pruned, "pruned"), (failed, "failed")) if number)
        number = len({run.name for run in trials} | {name for name in self.failures() if TRIAL.match(name)})
        of_trials = f"{counted(number, 'trial')}{f' ({ended})' if ended else ''}"
        return f"The settings were chosen from {of_trials} on validation data and trained again with other seeds."

    def _started(self) -> list[Run]:
        folder = self.path / "runs"
        found = sorted(folder.iterdir()) if folder.is_dir() else []
        return [run for path in found if (run := Run(path)).config_file.is_file() or run.finished]

    def log(self, name: str) -> Path:
        """Return the file with the output of a run."""
        return self.path / "logs" / f"{name}.log"

    def record(self, name: str) -> Record | None:
        """Return what the process that last worked on a run says of it; None if none has."""
        return latest(self.claims, name)

    def failures(self) -> dict[str, FailedRun]:
        """Return the failed runs, by name.

        Raises:
            FgvcError: the file of an earlier version that lists them is damaged.
        """
        claimed = [path.name.removesuffix(".1.json") for path in self.claims.glob("*.1.json")]
        records = {name: self.record(name) for name in claimed}
        earlier = {name: each for name, each in self._listed_failures().items() if name not in records}
        failed = {name: record for name, record in sorted(records.items()) if record and record.state == "failed"}
        return earlier | {name: FailedRun(name, **each.run, reason=each.reason) for name, each in failed.items()}

    def fail(self, run: PlannedRun, reason: str, token: str) -> None:
        """Record that the process of a run was killed before it could say so; `token` is that of its launch."""
        claim = Claim.take(self.claims, run.name, token, run.description, dead=token)
        if claim is not None:
            claim.end("failed", reason)

    def _listed_failures(self) -> dict[str, FailedRun]:
        if not self.failures_file.is_file():
            return {}
        try:
            return {each["name"]: FailedRun(**each) for each in files.read_json(self.failures_file)}
        except (FgvcError, TypeError, KeyError) as error:
            raise FgvcError(f"{self.failures_file} is damaged ({error}); delete it to retry failed runs") from error

    def state(self, name: str) -> State:
        """Return the state of a run."""
        run = self.run(name)
        if run.finished:
            return "finished"
        record = self.record(name)
        if name in self._listed_failures() if record is None else record.state == "failed":
            return "failed"
        return "started" if run.config_file.is_file() else "waiting"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes of this machine from training the study while the block runs.

        Those of other machines take the runs that are not claimed.

        Raises:
            FgvcError: another process is training it.
        """
        with training_lock(self.path, inherited=True, file=f"{LOCK_FILE}-{socket.gethostname()}"):
            yield


def find_study(path: Path) -> StudyFolder:
    """Return the study at a path: its folder, or the study file in it.

    Raises:
        FgvcError: there is none.
    """
    folder = StudyFolder(path.parent if path.name == STUDY_FILE else path)
    if not folder.exists:
        missing = f"has no {STUDY_FILE}" if folder.path.is_dir() else "does not exist"
        raise FgvcError(f"{path} {missing}; name the folder of a study")
    return folder


def check_new_study(out: Path) -> None:
    """Check that a new study may use a folder: one that does not exist, or is empty.

    Raises:
        UsageError: it may not.
    """
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        resume = f", or resume the study in it (`resume={out}`)" if StudyFolder(out).exists else ""
        raise UsageError(f"`out={out}` exists; choose another folder{resume}")


def new_study(study: Study, out: Path | None, label: str) -> StudyFolder:
    """Create the folder of a new study (default: named after the time and `label`) and write its study file.

    Raises:
        UsageError: `out` exists and is not empty.
        FgvcError: the folder cannot be created.
    """
    if out is not None:
        check_new_study(out)
    folder = StudyFolder(new_folder(out, "study", label))
    files.write_text(folder.study_file, study.as_toml())
    return folder
