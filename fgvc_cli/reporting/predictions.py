"""What an evaluation kept of each image: `predictions.csv`, read back."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fgvc_cli.errors import FgvcError


@dataclass(frozen=True)
class Prediction:
    """What a classifier said of a labelled image.

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
