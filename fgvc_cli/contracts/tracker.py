"""The tracker contract: who is told how a training goes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class RunStart:
    """A training that starts or goes on.

    Attributes:
        folder: the run folder.
        config: what `config.toml` holds: settings by section, `recipe`, and the version of `fgvc`.
        class_names: in the order of the scores.
        resumed: whether it goes on from a saved state.
        epochs_done: how many epochs that state has seen; 0 for a new training.
    """

    folder: Path
    config: dict[str, Any]
    class_names: tuple[str, ...]
    resumed: bool
    epochs_done: int = 0

    def own_folder(self, name: str) -> Path:
        """Make and return the folder, within the run folder, for what the tracker of that name keeps."""
        folder = self.folder / "trackers" / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder


class Tracker(ABC):
    """Is told how a training goes, where a person asks for it: `fgvc train --track NAME`.

    The host calls the component's target as `target(options=...)` before anything else of the training: it imports the
    package that it stands on and raises `FgvcError` where that is missing, but writes and reaches nothing yet. Of
    several processes that train together the first alone tells it the rest. Once training goes on, a tracker that
    raises is warned of once and stops nothing.
    """

    @abstractmethod
    def __init__(self, options: Any) -> None: ...

    @abstractmethod
    def started(self, run: RunStart) -> None:
        """Training is about to start, or to go on.

        What it raises ends the training before it begins: whoever asked for a tracker wants it.
        """

    @abstractmethod
    def epoch_finished(self, metrics: Mapping[str, Any]) -> None:
        """An epoch is done: `metrics` is the line that `metrics.jsonl` got."""

    @abstractmethod
    def finished(self, summary: Mapping[str, Any] | None) -> None:
        """Training has ended; this comes once, whatever happened after `started`.

        Args:
            summary: what `summary.json` holds; None: it was interrupted or failed, and may go on later.
        """

    def notes(self) -> list[str]:
        """Return lines a person should know, such as where to look; asked after `started`."""
        return []


def scalars(document: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Return the numbers in nested tables by one name each: `{"train": {"top1": 0.5}}` is `{"train/top1": 0.5}`.

    Args:
        document: such as the metrics of an epoch; what is neither number nor table is left out.
        prefix: what the names begin with, without the "/".
    """
    found: dict[str, float] = {}
    for name, value in document.items():
        path = f"{prefix}/{name}" if prefix else str(name)
        if isinstance(value, Mapping):
            found.update(scalars(value, path))
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[path] = float(value)
    return found
