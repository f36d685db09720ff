"""Per-image predictions read back from `predictions.csv`."""

from __future__ import annotations

import csv
import logging
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fgvc_cli.errors import FgvcError
from fgvc_cli.evaluation.evaluate import PreparedEvaluation
from fgvc_cli.evaluation.split_selection import SelectedSplit
from fgvc_cli.progress import progress
from fgvc_cli.scoring.model import ReadyClassifier
from fgvc_cli.scoring.results import PREDICTIONS, SUMMARY, EvaluationSummary

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prediction:
    """What a classifier said of a labeled image.

    Attributes:
        key: the image's name in the split.
        true, predicted: class names; `predicted` is empty where the scores were not finite.
        probability: of the predicted class.
        true_probability: of the true class.
    """

    key: str
    true: str
    predicted: str
    probability: float
    true_probability: float

    @property
    def is_right(self) -> bool:
        """Whether the predicted class is the true one."""
        return self.predicted == self.true


def read_predictions(path: Path) -> list[Prediction]:
    """Read a file that `fgvc evaluate` wrote.

    Raises:
        FgvcError: it is damaged.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [_prediction(row) for row in csv.DictReader(file)]
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise FgvcError(f"{path} is damaged ({error}): delete it, and it is made again.") from error


def confused(predictions: Sequence[Prediction]) -> Counter[tuple[str, str]]:
    """Return how many images of a class were taken for which class, by (true, predicted), right ones included."""
    return Counter((p.true, p.predicted) for p in predictions if p.predicted)


def mistakes(predictions: Sequence[Prediction]) -> list[Prediction]:
    """Return the wrong ones, the most confident first."""
    wrong = [p for p in predictions if p.predicted and not p.is_right]
    return sorted(wrong, key=lambda p: -p.probability)


def _prediction(row: dict[str, str]) -> Prediction:
    return Prediction(
        row["key"],
        row["true"],
        row["predicted"],
        float(row["probability"] or "nan"),
        float(row["true_probability"] or "nan"),
    )


@dataclass(frozen=True)
class Scored:
    """What a run's classifier is worth on a split.

    Attributes:
        summary: as `fgvc evaluate` writes it.
        predictions: for each image; none where only the summary is left.
        folder: where both are kept, or None.
    """

    summary: EvaluationSummary
    predictions: list[Prediction] = field(default_factory=list)
    folder: Path | None = None

    @property
    def class_names(self) -> list[str]:
        """The classes, in the classifier's order."""
        return [row.name for row in self.summary.per_class]

    @property
    def standard_error(self) -> float:
        """Standard error of the top-1 accuracy, a fraction: of a share p of n images the root of p (1 - p) / n."""
        top1 = self.summary.top1 or 0.0
        return math.sqrt(top1 * (1 - top1) / self.summary.images)


def read_scored(folder: Path) -> Scored | None:
    """Read what an evaluation left in a folder; None if there is none, or it lacks the predictions.

    Raises:
        FgvcError: it is damaged.
    """
    summary_file, predictions_file = folder / SUMMARY, folder / PREDICTIONS
    if not (summary_file.is_file() and predictions_file.is_file()):
        return None
    scored = Scored(EvaluationSummary.read(summary_file), read_predictions(predictions_file), folder)
    known = {*scored.class_names, ""}
    strange = next((p for p in scored.predictions if not {p.true, p.predicted} <= known), None)
    if strange is not None:
        raise FgvcError(
            f"{predictions_file} does not belong to {SUMMARY} beside it, which knows no class '{strange.true}' or "
            f"'{strange.predicted}': delete both, and they are made again."
        )
    return scored


def evaluate(ready: ReadyClassifier, subject: SelectedSplit, folder: Path) -> Scored:
    """Evaluate as `fgvc evaluate` does, and keep the results where it keeps them.

    Raises:
        FgvcError: no image can be read, memory runs out, or the results cannot be written.
    """
    prepared = PreparedEvaluation(ready, subject, folder)
    for line in prepared.notes():
        logger.info(line)
    with progress(subject.split.name, len(subject.split)) as bar:
        prepared.run(bar.advance)
    scored = read_scored(folder)
    assert scored is not None
    return scored
