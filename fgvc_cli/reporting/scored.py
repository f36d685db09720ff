"""The figures of a split and the prediction for each of its images: those that were kept, or new ones."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fgvc_cli.display.progress import View
from fgvc_cli.errors import FgvcError
from fgvc_cli.evaluation.computing import ReadyClassifier
from fgvc_cli.evaluation.evaluating import PreparedEvaluation
from fgvc_cli.evaluation.results import PREDICTIONS, SUMMARY
from fgvc_cli.evaluation.subject import Subject
from fgvc_cli.reporting.predictions import Prediction, read_predictions
from fgvc_cli.runs import files

NEEDED = (
    "split", "origin", "dataset", "images", "classes", "classes_present", "top1", "top5", "macro", "weighted",
    "calibration_error", "per_class", "notes",
)  # fmt: skip
"""Keys of an evaluation's summary without which there is nothing to report."""


@dataclass(frozen=True)
class Scored:
    """What a run's classifier is worth on a split.

    Attributes:
        summary: as `fgvc evaluate` writes it.
        predictions: for each image; none where only the summary is left.
        folder: where both are kept, or None.
    """

    summary: dict[str, Any]
    predictions: list[Prediction] = field(default_factory=list)
    folder: Path | None = None

    @property
    def class_names(self) -> list[str]:
        """The classes, in the classifier's order."""
        return [row["class"] for row in self.summary["per_class"]]

    @property
    def standard_error(self) -> float:
        """Standard error of the top-1 accuracy, a fraction: of a share p of n images the root of p (1 - p) / n."""
        top1, images = self.summary["top1"], self.summary["images"]
        return math.sqrt(top1 * (1 - top1) / images)


def read_scored(folder: Path) -> Scored | None:
    """Read what an evaluation left in a folder; None if there is none, or it lacks the predictions.

    Raises:
        FgvcError: it is damaged.
    """
    summary_file, predictions_file = folder / SUMMARY, folder / PREDICTIONS
    if not (summary_file.is_file() and predictions_file.is_file()):
        return None
    summary = files.read_object(summary_file, files.MADE_AGAIN)
    missing = [key for key in NEEDED if key not in summary]
    if missing:
        raise FgvcError(f"{summary_file} is damaged: it has no '{missing[0]}'. {files.MADE_AGAIN}")
    scored = Scored(summary, read_predictions(predictions_file), folder)
    known = {*scored.class_names, ""}
    strange = next((p for p in scored.predictions if not {p.true, p.predicted} <= known), None)
    if strange is not None:
        raise FgvcError(
            f"{predictions_file} does not belong to {SUMMARY} beside it, which knows no class '{strange.true}' or "
            f"'{strange.predicted}': delete both, and they are made again."
        )
    return scored


def evaluate(ready: ReadyClassifier, subject: Subject, folder: Path, view: View) -> Scored:
    """Evaluate as `fgvc evaluate` does, and keep the results where it keeps them.

    Raises:
        FgvcError: no image can be read, memory runs out, or the results cannot be written.
    """
    prepared = PreparedEvaluation(ready, subject, folder)
    for line in prepared.notes():
        view.note(line)
    with view.progress(subject.split.name, len(subject.split)) as bar:
        prepared.run(bar.advance)
    scored = read_scored(folder)
    assert scored is not None
    return scored
