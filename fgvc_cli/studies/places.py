"""Where a study keeps what; free of torch, so that a study is found and compared quickly."""

from __future__ import annotations

from pathlib import Path

from fgvc_cli.runs.folder import RunFolder

STUDY_FILE = "study.toml"
RUNS, LOGS, COMPARISON, FAILURES_FILE = "runs", "logs", "comparison", "failed.json"


def is_study(path: Path) -> bool:
    """Say whether a path is a study's folder."""
    return (path / STUDY_FILE).is_file()


def runs_of(study: Path) -> list[RunFolder]:
    """Return the runs of a study that have begun, by name; a finished one even if its settings are lost."""
    folder = study / RUNS
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    return [run for path in found if (run := RunFolder(path)).config_file.is_file() or run.finished]
