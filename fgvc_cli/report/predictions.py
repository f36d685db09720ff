"""An evaluation read back from its files: summary and predictions."""

from __future__ import annotations

import glob
import logging
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fgvc_cli.errors import FgvcError
from fgvc_cli.evaluation import evaluate as evaluation
from fgvc_cli.evaluation.split_selection import SelectedSplit
from fgvc_cli.scoring.model import ReadyClassifier
from fgvc_cli.scoring.results import PREDICTIONS, SUMMARY, EvaluationSummary, Prediction, read_predictions

logger = logging.getLogger(__name__)


def confused(predictions: Sequence[Prediction]) -> Counter[tuple[str, str]]:
    """Return numbers of images by (true class, predicted class)."""
    return Counter((p.true, p.predicted) for p in predictions if p.predicted)


def mistakes(predictions: Sequence[Prediction]) -> list[Prediction]:
    """Return the wrong predictions, the most confident first."""
    wrong = [p for p in predictions if p.predicted and not p.is_right]
    return sorted(wrong, key=lambda p: -p.probability)


@dataclass(frozen=True)
class SplitScores:
    """An evaluation on a split; no predictions if only the summary is left, and then no folder."""

    summary: EvaluationSummary
    predictions: list[Prediction] = field(default_factory=list)
    folder: Path | None = None

    @property
    def class_names(self) -> list[str]:
        """The classes, in the classifier's order."""
        return [row.name for row in self.summary.per_class]

    @property
    def standard_error(self) -> float:
        """Standard error of the top-1 accuracy p on n images, a fraction: sqrt(p (1 - p) / n)."""
        top1 = self.summary.top1 or 0.0
        return math.sqrt(top1 * (1 - top1) / self.summary.images)


def read_scores(folder: Path) -> SplitScores | None:
    """Read the evaluation in a folder; None if it is missing or has no predictions.

    Raises:
        FgvcError: a file is damaged.
    """
    summary_file, predictions_file = folder / SUMMARY, folder / PREDICTIONS
    if not (summary_file.is_file() and predictions_file.is_file()):
        return None
    scores = SplitScores(EvaluationSummary.read(summary_file), read_predictions(predictions_file), folder)
    known = {*scores.class_names, ""}
    unknown = next((name for p in scores.predictions for name in (p.true, p.predicted) if name not in known), None)
    if unknown is not None:
        raise FgvcError(
            f"{predictions_file} does not match {SUMMARY} in the same folder, which has no class '{unknown}'; delete "
            "both to evaluate again"
        )
    return scores


def augmented_scores(folder: Path) -> list[EvaluationSummary]:
    """Read the evaluations with test-time augmentation of the split whose evaluation is in a folder.

    Raises:
        FgvcError: a file is damaged.
    """
    found = map(EvaluationSummary.read, sorted(folder.parent.glob(f"{glob.escape(folder.name)}-*/{SUMMARY}")))
    return [summary for summary in found if summary.tta]


def evaluate(ready: ReadyClassifier, selected: SelectedSplit, folder: Path) -> SplitScores:
    """Evaluate a classifier and write the results to a folder.

    Raises:
        FgvcError: no image can be read, memory runs out, or the results cannot be written.
    """
    for line in (selected.description, *selected.notes):
        logger.info(line)
    evaluation.evaluate(ready, selected, folder)
    scores = read_scores(folder)
    assert scores is not None
    return scores
