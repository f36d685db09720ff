"""What is recorded of an evaluation: its figures, and what they are of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from fgvc_cli._version import __version__
from fgvc_cli.contracts import Preprocessing, Split
from fgvc_cli.devices import describe_device
from fgvc_cli.evaluation.metrics import figures, most_confident_mistakes, most_confused
from fgvc_cli.evaluation.scoring import Scores

LISTED = 10
"""How many confused pairs and confident mistakes a summary names."""


@dataclass(frozen=True)
class Occasion:
    """What was evaluated on which images, and where it was computed.

    Attributes:
        run: what a person names the classifier by; several, if their predictions are averaged.
        dataset: the data set's name.
        data: the folder or file that it was made from, or None.
        split: the images.
        device: computed the scores.
        precision: "fp32" or "bf16".
        notes: what a person should know when reading the figures.
        preprocessing: how images were made fit for the classifier; None of several, each of which has its own.
    """

    run: Path | tuple[Path, ...]
    dataset: str
    data: Path | None
    split: Split
    device: torch.device
    precision: str
    notes: tuple[str, ...] = ()
    preprocessing: Preprocessing | None = None

    def summary(self, scores: Scores, class_names: Sequence[str]) -> dict[str, Any]:
        """Return what `summary.json` holds: what the figures are of, and those of `metrics.figures`."""
        return {
            **self._runs(),
            "dataset": dataset_record(self.dataset, self.data),
            "split": self.split.name,
            "origin": self.split.origin,
            "notes": list(self.notes),
            **figures(scores, class_names),
            "most_confused": most_confused(scores, class_names, LISTED),
            "most_confident_mistakes": [
                {**mistake, "file": self._file(mistake["key"])}
                for mistake in most_confident_mistakes(scores, class_names, LISTED)
            ],
            "failures": [{"key": key, "reason": reason} for key, reason in scores.failures.items()],
            "seconds": round(scores.seconds, 3),
            "device": describe_device(self.device),
            "precision": self.precision,
            **({} if self.preprocessing is None else {"preprocessing": asdict(self.preprocessing)}),
            "fgvc": __version__,
        }

    def _runs(self) -> dict[str, Any]:
        return {"run": str(self.run)} if isinstance(self.run, Path) else {"runs": [str(run) for run in self.run]}

    def _file(self, key: str) -> str | None:
        image = self.split.images[list(self.split.keys).index(key)]
        return str(image) if isinstance(image, Path) else None


def dataset_record(name: str, data: Path | None) -> dict[str, Any]:
    """Return what a summary records of a data set: its name, and the folder or file that it was made from."""
    return {"name": name, "data": None if data is None else str(data)}
