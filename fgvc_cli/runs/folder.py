"""Run folders: their files, and how to create and find them."""

from __future__ import annotations

import json
import os
import shutil
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fgvc_cli import files
from fgvc_cli.config.renamed import current_document
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.files import FileLock, Locked
from fgvc_cli.formatting import html_table, percent
from fgvc_cli.runs.results import EpochMetrics, TrainingSummary
from fgvc_cli.settings import current

LOCK_FILE = ".lock"
"""Locked by the process that trains into the folder."""
MODEL_FILE = "model.safetensors"
EXPORTED = "export"
"""Folder of exported models in a run."""
CONFIG_FILE = "config.toml"
REPORT_FILE = "report.html"
STUDY_FILE, RUNS = "study.toml", "runs"
"""Names in the folder of a study: its file, and the folder of its runs."""
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
    "calibration",
    EXPORTED,
    "explanation",
    "trackers",
)
"""Everything that fgvc writes into a run folder."""


@dataclass(frozen=True)
class Run(os.PathLike[str]):
    """A run folder: settings, metrics by epoch, the model, the state to resume from, and the summary.

        run = Run("runs/birds")
        run.summary.test.top1, run.metrics[-1].train.loss, run.config["optimizer"]["lr"]

    It can be passed wherever the path of a run is expected.
    """

    path: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))

    def __fspath__(self) -> str:
        return os.fspath(self.path)

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.path.absolute().name  # that of "." is empty

    @property
    def config_file(self) -> Path:
        """The settings, which reproduce the run."""
        return self.path / CONFIG_FILE

    @property
    def metrics_file(self) -> Path:
        """One JSON line per epoch."""
        return self.path / "metrics.jsonl"

    @property
    def model_file(self) -> Path:
        """Weights, class names and preprocessing of the best epoch."""
        return self.path / MODEL_FILE

    @property
    def state_file(self) -> Path:
        """Everything needed to resume."""
        return self.path / "last" / "state.safetensors"

    @property
    def summary_file(self) -> Path:
        """Metrics and facts of the finished run."""
        return self.path / "summary.json"

    def evaluation(self, split: str) -> Path:
        """Return the folder for the evaluation of a split of the run's own dataset."""
        return self.path / "evaluation" / split

    @property
    def finished(self) -> bool:
        """Whether the run is finished."""
        return self.summary_file.is_file() and self.model_file.is_file()

    @property
    def config(self) -> dict[str, Any]:
        """The settings by section, as in `config.toml`.

        Raises:
            FgvcError: the file is missing or damaged.
        """
        try:
            return current_document(tomllib.loads(self.config_file.read_text(encoding="utf-8-sig")))
        except (OSError, ValueError) as error:
            raise FgvcError(f"{self.config_file} cannot be read: {error}") from error

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
        return [metrics for metrics, _ in self._metric_lines()]

    def keep_metrics(self, epochs: int) -> None:
        """Truncate the metrics to the epochs of the saved state.

        Raises:
            FgvcError: the file is damaged, or has fewer epochs.
        """
        if not epochs:  # nor has a run that no one stopped
            self.metrics_file.unlink(missing_ok=True)
            return
        lines = self._metric_lines(epochs)
        if len(lines) < epochs:
            raise FgvcError(
                f"{self.metrics_file} has {len(lines)} epochs, but the saved state is of epoch {epochs}; "
                f"{self.restart_advice}"
            )
        files.write_bytes(self.metrics_file, b"".join(line + b"\n" for _, line in lines))

    @property
    def restart_advice(self) -> str:
        """What to do if one of the files to resume from is missing or damaged."""
        return f"restore it, or start again with `config={self.config_file}`"

    def clear_parts(self) -> None:
        """Delete partly written files of a killed training, which are never read."""
        for folder in (self.path, self.state_file.parent):
            files.clear_parts(folder)

    def _metric_lines(self, epochs: int | None = None) -> list[tuple[EpochMetrics, bytes]]:
        """Return the metrics and the line of each epoch, at most `epochs`; of several lines on one, the last counts."""
        content = self.metrics_file.read_bytes() if self.metrics_file.is_file() else b""
        found: dict[int, tuple[EpochMetrics, bytes]] = {}
        for number, line in enumerate(content.split(b"\n"), 1):
            if epochs is not None and len(found) == epochs:
                break  # what follows the saved state may be half a line
            if not line.strip():
                continue
            try:
                metrics = EpochMetrics.from_json(json.loads(line))
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise FgvcError(f"{self.metrics_file} is damaged in line {number}; {self.restart_advice}") from error
            found[metrics.epoch] = metrics, line
        return [found[epoch] for epoch in sorted(found)]

    def _repr_html_(self) -> str:
        """Show the run in a notebook."""
        rows = [("run", str(self.path))]
        if self.finished:
            summary = self.summary
            names = [summary.components[kind]["name"] for kind in ("backbone", "head", "optimizer", "dataset")]
            rows += [("model", " + ".join(names[:3])), ("dataset", f"{names[3]}, {summary.classes} classes")]
            rows.append(("epochs", f"{summary.epochs}, best {summary.best_epoch}"))
            splits = {"train": summary.train, "val": summary.val, "test": summary.test}
            rows += [(f"{name} top-1", percent(row.top1)) for name, row in splits.items() if row is not None]
        else:
            rows.append(("epochs", f"{len(self.metrics)}, not finished"))
        return html_table(rows)


def find_run(path: Path | None) -> Run:
    """Return the run at a path (a run folder or the model file in it), or the newest finished run.

    Raises:
        FgvcError: there is no such run.
    """
    if path is not None:
        folder = path.parent if path.is_file() and path.suffix == ".safetensors" else path
        if not folder.is_dir():
            raise FgvcError(f"run {path} does not exist; pass a run folder or its {MODEL_FILE}")
        if not (folder / MODEL_FILE).is_file():
            raise FgvcError(f"{path} is not a finished run: it has no {MODEL_FILE}")
        return Run(folder)
    runs = current().runs
    finished = [r for p in (runs.iterdir() if runs.is_dir() else ()) if (r := Run(p)).finished]
    if not finished:
        raise FgvcError(f"No finished run in {runs}; train one, or name one with `run`")
    return max(finished, key=lambda r: (r.summary_file.stat().st_mtime_ns, r.name))


def check_out(out: Path, force: bool) -> None:
    """Check that a new run may use a folder: a new or empty one, or with `force` that of another run.

    Raises:
        UsageError: it may not.
    """
    if not out.exists() or (out.is_dir() and not (found := _contents(out))):
        return
    others = sorted(found - set(CONTENTS)) if out.is_dir() else [out.name]
    from_model_file = (out / LOCK_FILE).is_file() and (out / MODEL_FILE).is_file()  # it has no settings
    if others or not (from_model_file or (out / CONFIG_FILE).is_file()):
        what = f"has files that are not from a run ({others[0]})" if others else "is not a run folder"
        raise UsageError(f"`out={out}` exists and {what}; choose another folder")
    if not force:
        raise UsageError(
            f"`out={out}` exists; choose another folder, resume its run (`resume={out}`) or replace it (`force=true`)"
        )


def _contents(folder: Path) -> set[str]:
    """Return the names in a folder, without what a killed program may have left before it wrote anything."""
    return {path.name for path in folder.iterdir() if path.name != LOCK_FILE and not files.is_part(path)}


@contextmanager
def new_run(out: Path | None, force: bool, *names: str) -> Iterator[Run]:
    """Create the folder of a new run, locked within the block.

    It is `out`, or a new one in the runs folder, named by the time and `names`. With `force`, a run at `out` is
    replaced.

    Raises:
        UsageError: `out` may not be used; see `check_out`.
        FgvcError: the folder cannot be created, or another process is training into it.
    """
    if out is not None:
        check_out(out, force)
    run = Run(new_folder(out, *names))
    with training_lock(run.path):
        if out is not None:
            check_out(out, force)
            _delete_run(out)
        yield run


def _delete_run(folder: Path) -> None:
    """Delete the contents of a run folder, in an order that leaves a run at any moment: the settings last."""
    order = {"summary.json": 0, CONFIG_FILE: 2}
    try:
        for old in sorted(folder.iterdir(), key=lambda path: order.get(path.name, 1)):
            if old.is_dir() and not old.is_symlink():
                shutil.rmtree(old)
            elif old.name != LOCK_FILE:
                old.unlink()
    except OSError as error:
        raise _cannot_create(error) from error


@contextmanager
def training_lock(folder: Path, inherited: bool = False, file: str = LOCK_FILE) -> Iterator[None]:
    """Keep other processes from training into a folder while the block runs.

    Loader processes outlive a killed training by seconds and write nothing: unless `inherited`, they do not hold it.

    Raises:
        FgvcError: another process is training into it.
    """
    try:
        lock = FileLock(folder / file, shared=False, inherited=inherited)
    except Locked as error:
        raise FgvcError(f"Another process is training {folder}; wait for it, or stop it first") from error
    except OSError:  # a file system without locks, or a full one: the next write reports that
        yield
        return
    try:
        yield
    finally:
        lock.close()


def new_folder(out: Path | None, *names: str) -> Path:
    """Create a folder for results: `out`, or a new one in the runs folder, named by the time and `names`.

    Raises:
        FgvcError: it cannot be created.
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
        raise _cannot_create(error) from error
    raise FgvcError(f"{current().runs} already has 999 runs created in this second; try again")


def _cannot_create(error: OSError) -> FgvcError:
    return FgvcError(f"Cannot create the run folder: {error.filename}: {error.strerror}; choose another `out`")


def choose_new_folder(out: Path | None, force: bool, below: str, what: str) -> Path:
    """Choose the folder for results, without creating it.

    Args:
        out: the folder; None: a new one named by the time.
        force: whether `out` may hold results, which are then replaced.
        below: parent of the new one, in the current folder: "bench", "ensemble".
        what: name of the results in errors: "the benchmark".

    Raises:
        UsageError: `out` is a file, or exists without `force`.
        FgvcError: no folder can be created there.
    """
    if out is None:
        stem = Path(below) / time.strftime("%Y%m%d-%H%M%S")
        names = (stem, *(stem.with_name(f"{stem.name}-{number}") for number in range(2, 1000)))
        out = next((name for name in names if not name.exists()), stem)
    elif out.exists() and not out.is_dir():
        raise UsageError(f"`out={out}` is a file; name a folder")
    elif out.is_dir() and any(out.iterdir()) and not force:
        raise UsageError(f"`out={out}` exists; choose another folder, or replace {what} in it (`force=true`)")
    parent = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):  # now, not after hours of work
        cause = "is not writable" if parent.is_dir() else "is a file"
        raise FgvcError(f"Cannot write results to {out}: {parent} {cause}; choose another `out`")
    return out
