"""The folder of a study: its file, its runs, their logs and failures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from fgvc_cli import files
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.experiments.study import PlannedRun, Study
from fgvc_cli.runs.folder import Run, new_folder, training_lock

STUDY_FILE = "study.toml"

State = Literal["finished", "failed", "started", "waiting"]
"""State of a run: a "started" one was interrupted or killed and can resume, a "waiting" one has not started."""


@dataclass(frozen=True)
class FailedRun:
    """A run that failed, with the reason in one line; the JSON form is an object with these keys."""

    name: str
    backbone: str
    head: str
    optimizer: str
    seed: int
    reason: str

    @property
    def title(self) -> str:
        """The names of the components, and the seed."""
        return f"{self.backbone} + {self.head} + {self.optimizer}, seed {self.seed}"


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
        """The JSON file that lists the failed runs; missing if there are none."""
        return self.path / "failed.json"

    @property
    def comparison(self) -> Path:
        """The folder of the study's comparison."""
        return self.path / "comparison"

    def run(self, name: str) -> Run:
        """Return the folder of a run."""
        return Run(self.path / "runs" / name)

    def runs(self) -> list[Run]:
        """Return the runs that have started, by name, including finished ones without settings."""
        folder = self.path / "runs"
        found = sorted(folder.iterdir()) if folder.is_dir() else []
        return [run for path in found if (run := Run(path)).config_file.is_file() or run.finished]

    def log(self, name: str) -> Path:
        """Return the file with the output of a run."""
        return self.path / "logs" / f"{name}.log"

    def failures(self) -> dict[str, FailedRun]:
        """Return the failed runs, by name.

        Raises:
            FgvcError: the file that lists them is damaged.
        """
        if not self.failures_file.is_file():
            return {}
        try:
            return {each["name"]: FailedRun(**each) for each in files.read_json(self.failures_file)}
        except (FgvcError, TypeError, KeyError) as error:
            raise FgvcError(f"{self.failures_file} is damaged ({error}); delete it to retry failed runs") from error

    def write_failures(self, failures: Mapping[str, FailedRun]) -> None:
        """Write the file that lists the failed runs."""
        files.write_json(self.failures_file, [asdict(each) for each in failures.values()])

    def add_failure(self, run: PlannedRun, reason: str) -> None:
        """Record why a run failed."""
        names = {str(kind): name for kind, name in run.combination.components.items()}
        self.write_failures({**self.failures(), run.name: FailedRun(run.name, **names, seed=run.seed, reason=reason)})

    def clear_failure(self, run: PlannedRun) -> None:
        """Remove a run from the failed ones before it is retried."""
        failures = self.failures()
        if failures.pop(run.name, None) is not None:
            self.write_failures(failures)

    def state(self, name: str) -> State:
        """Return the state of a run."""
        run = self.run(name)
        if run.finished:
            return "finished"
        if name in self.failures():
            return "failed"
        return "started" if run.config_file.is_file() else "waiting"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from training the study while the block runs.

        Raises:
            FgvcError: another process is training it.
        """
        with training_lock(self.path, inherited=True):
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
