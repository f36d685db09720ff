"""The tracker contract: log a training run to another program."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class RunStart:
    """A training run that starts or resumes.

    Attributes:
        folder: the run folder.
        config: content of `config.toml`: settings by section, `recipe`, and the version of `fgvc`.
        class_names: names of the classes, in the order of the scores.
        resumed: whether the run resumes from a saved state.
        epochs_done: number of epochs in that state; 0 for a new run.
    """

    folder: Path
    config: dict[str, Any]
    class_names: tuple[str, ...]
    resumed: bool
    epochs_done: int = 0

    def own_folder(self, name: str) -> Path:
        """Create and return the folder for files of the tracker of that name, inside the run folder."""
        folder = self.folder / "trackers" / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder


class Tracker(ABC):
    """Logs a training run; enabled with `train.track`.

    The host calls the component's target as `target(options=...)` before it does anything else. The constructor imports
    the package that it depends on, and neither writes nor connects. In distributed training only the main process uses
    trackers. After `started`, a tracker that raises is warned about once, and training continues.

    Raises:
        FgvcError: the package is not installed.
    """

    @abstractmethod
    def __init__(self, options: Any) -> None: ...

    @abstractmethod
    def started(self, run: RunStart) -> None:
        """Called before training starts or resumes; an error ends the run."""

    @abstractmethod
    def epoch_finished(self, metrics: Mapping[str, Any]) -> None:
        """Called after each epoch with its line of `metrics.jsonl`."""

    @abstractmethod
    def finished(self, summary: Mapping[str, Any] | None) -> None:
        """Called once after `started`, however training ends.

        Args:
            summary: content of `summary.json`; None if training was interrupted or failed, and may be resumed.
        """

    def notes(self) -> list[str]:
        """Return notes for the user, one line each, such as a URL; called after `started`."""
        return []


def scalars(document: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Flatten the numbers in nested dicts: `{"train": {"top1": 0.5}}` becomes `{"train/top1": 0.5}`.

    Args:
        document: such as the metrics of an epoch; values that are neither numbers nor dicts are skipped.
        prefix: prefix of the names, without the "/".
    """
    found: dict[str, float] = {}
    for name, value in document.items():
        path = f"{prefix}/{name}" if prefix else str(name)
        if isinstance(value, Mapping):
            found.update(scalars(value, path))
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[path] = float(value)
    return found
