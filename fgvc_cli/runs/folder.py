"""Run folders: their names, their contents, and the newest finished one."""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from fgvc_cli import files
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.runs.results import EpochMetrics, TrainingSummary
from fgvc_cli.settings import current

MODEL_FILE = "model.safetensors"
CONFIG_FILE = "config.toml"
REPORT_FILE = "report.html"
CONTENTS = (
    CONFIG_FILE,
    MODEL_FILE,
    "metrics.jsonl",
    "summary.json",
    "curves.png",
    REPORT_FILE,
    "last",
    "samples",
    "evaluation",
    "explanation",
    "trackers",
)
"""Everything that fgvc puts into a run folder."""


@dataclass(frozen=True)
class RunFolder:
    """A run folder: the settings, the metrics by epoch, the model, the state to resume from and the summary."""

    path: Path

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.absolute().name  # that of "." is empty

    @property
    def config_file(self) -> Path:
        """The settings that reproduce the run."""
        return self.path / CONFIG_FILE

    @property
    def metrics_file(self) -> Path:
        """One JSON line an epoch."""
        return self.path / "metrics.jsonl"

    @property
    def model_file(self) -> Path:
        """Weights, class names and preprocessing of the best epoch."""
        return self.path / MODEL_FILE

    @property
    def state_file(self) -> Path:
        """All that is needed to go on training."""
        return self.path / "last" / "state.safetensors"

    def evaluation(self, split: str) -> Path:
        """Return the folder of what the model says of a split of the run's own dataset."""
        return self.path / "evaluation" / split

    @property
    def summary_file(self) -> Path:
        """The figures of the finished run."""
        return self.path / "summary.json"

    @property
    def finished(self) -> bool:
        """Whether training has come to its end."""
        return self.summary_file.is_file() and self.model_file.is_file()

    @property
    def summary(self) -> TrainingSummary:
        """The summary of a finished run.

        Raises:
            FgvcError: the file is missing or damaged.
        """
        return files.read_as(self.summary_file, TrainingSummary.from_json, "Restore it, or train again.")

    @property
    def metrics(self) -> list[EpochMetrics]:
        """The metrics by epoch.

        Raises:
            FgvcError: the file is damaged.
        """
        return [self._epoch(line, number) for number, line in enumerate(self._metric_lines(), 1)]

    def keep_metrics(self, epochs: int) -> None:
        """Cut the metrics back to that many epochs, those that the saved state has seen.

        Raises:
            FgvcError: the file is damaged, or has fewer epochs.
        """
        lines = self._metric_lines()[:epochs]
        for number, line in enumerate(lines, 1):
            self._epoch(line, number)
        if len(lines) < epochs:
            raise FgvcError(
                f"{self.metrics_file} has {len(lines)} epochs, and the saved state is of epoch {epochs}: restore the "
                f"file, or begin again with fgvc train --config {self.config_file}."
            )
        files.write_bytes(self.metrics_file, b"".join(line + b"\n" for line in lines))

    def clear_parts(self) -> None:
        """Delete what a killed training had half written; it lies beside the files and is never read."""
        for folder in (self.path, self.state_file.parent):
            files.clear_parts(folder)

    def _metric_lines(self) -> list[bytes]:
        content = self.metrics_file.read_bytes() if self.metrics_file.is_file() else b""
        return [line for line in content.split(b"\n") if line.strip()]

    def _epoch(self, line: bytes, number: int) -> EpochMetrics:
        try:
            return EpochMetrics.from_json(json.loads(line))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise FgvcError(
                f"{self.metrics_file} is damaged in line {number}: restore the file, or begin again with "
                f"fgvc train --config {self.config_file}."
            ) from error


def find_run(path: Path | None) -> RunFolder:
    """Return the run at a path (a run folder, or the model file in one), or the newest finished one.

    Raises:
        FgvcError: there is no such run.
    """
    if path is not None:
        folder = path.parent if path.is_file() and path.suffix == ".safetensors" else path
        if not folder.is_dir():
            raise FgvcError(f"{path}: there is no such run. Name a run folder or its {MODEL_FILE}.")
        if not (folder / MODEL_FILE).is_file():
            raise FgvcError(
                f"{path} is no run folder with a trained model (it has no {MODEL_FILE}): fgvc train makes one."
            )
        return RunFolder(folder)
    runs = current().runs
    finished = [r for p in (runs.iterdir() if runs.is_dir() else ()) if (r := RunFolder(p)).finished]
    if not finished:
        raise FgvcError(f"There is no finished run under {runs}. Train one with fgvc train, or name one with --run.")
    return max(finished, key=lambda r: (r.summary_file.stat().st_mtime_ns, r.name))


def check_out(out: Path, force: bool) -> None:
    """Say early whether a new run may take that folder: a new or empty one, or with `force` another run's.

    Raises:
        UsageError: it may not.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    others = sorted({p.name for p in out.iterdir()} - set(CONTENTS)) if out.is_dir() else [out.name]
    if others or not (out / CONFIG_FILE).is_file():
        what = f"holds what is no run's ({others[0]})" if others else "is no run folder"
        raise UsageError(f"--out {out} exists and {what}: choose another folder.")
    if not force:
        raise UsageError(
            f"--out {out} exists: choose another folder, go on with the run in it (fgvc train --resume {out}), "
            "or replace it with --force."
        )


def new_run(out: Path | None, force: bool, *names: str) -> RunFolder:
    """Make the folder of a new run.

    Args:
        out: where `--out` puts it; None: under the runs folder, named by the time and `names`.
        force: whether a run that stands at `out` is replaced.
        names: dataset, backbone, head and optimizer.

    Raises:
        UsageError: `out` may not be taken; see `check_out`.
        FgvcError: the folder cannot be made.
    """
    if out is None:
        return RunFolder(new_folder(None, *names))
    check_out(out, force)
    try:
        for old in out.iterdir() if out.exists() else ():
            shutil.rmtree(old) if old.is_dir() else old.unlink()
    except OSError as error:
        raise _cannot_make(error) from error
    return RunFolder(new_folder(out))


def new_folder(out: Path | None, *names: str) -> Path:
    """Make a folder for results.

    Args:
        out: where `--out` puts it; None: a new one under the runs folder, named by the time and `names`.
        names: what it is of.

    Raises:
        FgvcError: it cannot be made.
    """
    try:
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            return out
        plain = "-".join(name.replace("/", "-").replace(":", "-") for name in names)
        stem = f"{time.strftime('%Y%m%d-%H%M%S')}-{plain}"
        for number in range(1, 1000):
            path = current().runs / (stem if number == 1 else f"{stem}-{number}")
            try:
                path.mkdir(parents=True)
            except FileExistsError:
                continue
            return path
    except OSError as error:
        raise _cannot_make(error) from error
    raise FgvcError(f"{current().runs} is full of runs of this second: try again.")


def _cannot_make(error: OSError) -> FgvcError:
    return FgvcError(f"Cannot make the run folder: {error.filename}: {error.strerror}. Choose another with --out.")


def choose_new_folder(out: Path | None, force: bool, below: str, what: str) -> Path:
    """Return the folder for the results; it is not made yet.

    Args:
        out: what `--out` names; None: a new one named by the time.
        force: whether `out` may hold results, which are then replaced.
        below: where the new one lies, in the current folder: "bench", "ensemble".
        what: the results are, as the refusal names them: "the benchmark".

    Raises:
        UsageError: `out` exists and `force` is not given, or it is a file.
        FgvcError: no folder can be made there.
    """
    if out is None:
        stem = Path(below) / time.strftime("%Y%m%d-%H%M%S")
        names = (stem, *(stem.with_name(f"{stem.name}-{number}") for number in range(2, 1000)))
        out = next((name for name in names if not name.exists()), stem)
    elif out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file: name a folder.")
    elif out.is_dir() and any(out.iterdir()) and not force:
        raise UsageError(f"--out {out} exists: choose another folder, or replace {what} in it with --force.")
    _refuse_what_cannot_be_made(out)
    return out


def _refuse_what_cannot_be_made(folder: Path) -> None:
    """Say now, not after the work, that nothing can be written there."""
    above = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        cause = "cannot be written to" if above.is_dir() else "is a file"
        raise FgvcError(f"The results cannot go to {folder}: {above} {cause}. Choose another folder with --out.")
