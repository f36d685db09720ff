"""The files of an evaluation: summary, predictions, per-class metrics and confusion matrix."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from fgvc_cli import files
from fgvc_cli._version import __version__
from fgvc_cli.contracts import Preprocessing, Split
from fgvc_cli.devices import describe_device
from fgvc_cli.files import write_csv
from fgvc_cli.scoring.metrics import confusion_matrix, most_confident_mistakes, most_confused, split_metrics
from fgvc_cli.scoring.scores import Scores
from fgvc_cli.viz import confusion_matrix as draw_confusion_matrix

SUMMARIZED = 10
"""How many confused pairs and confident mistakes a summary names."""


@dataclass(frozen=True)
class Occasion:
    """What was evaluated on which images, and where it was computed.

    Attributes:
        run: what a person names the classifier by; several, if their predictions are averaged.
        dataset: the dataset's name.
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
            **split_metrics(scores, class_names).as_json(),
            "most_confused": most_confused(scores, class_names, SUMMARIZED),
            "most_confident_mistakes": [
                {**mistake, "file": self._file(mistake["key"])}
                for mistake in most_confident_mistakes(scores, class_names, SUMMARIZED)
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
    """Return what a summary records of a dataset: its name, and the folder or file that it was made from."""
    return {"name": name, "data": None if data is None else str(data)}


SUMMARY, PREDICTIONS, PER_CLASS, CONFUSION = "summary.json", "predictions.csv", "per_class.csv", "confusion.png"
SHARPNESS = "sharpness.json"
"""What `fgvc evaluate --sharpness` writes beside the others."""

LISTED = 5
"""How many classes a line of `predictions.csv` names."""
DRAWN_CLASSES = 2000
"""Up to so many classes the confusion matrix is drawn: above, a class would be smaller than a pixel."""


def write(
    folder: Path, summary: dict[str, Any], scores: Scores, class_names: Sequence[str], draw: bool = True
) -> list[Path]:
    """Write an evaluation's files; each replaces its predecessor whole, the summary last.

    Args:
        folder: where to; it is made.
        summary: for `summary.json`.
        scores: what it is of.
        class_names: in the order of the scores.
        draw: whether the confusion matrix is drawn too.

    Returns:
        The files.
    """
    written = [folder / PREDICTIONS, folder / PER_CLASS]
    write_csv(written[0], _prediction_header(scores), _prediction_rows(scores, class_names))
    columns = ("class", "images", "precision", "recall", "f1", "top1")
    write_csv(written[1], columns, ([row[column] for column in columns] for row in summary["per_class"]))
    if draw and scores.classes <= DRAWN_CLASSES:
        written.append(folder / CONFUSION)
        title = f"{summary['split']}: {100 * summary['top1']:.1f} % of {summary['images']} images right"
        draw_confusion_matrix(written[-1], confusion_matrix(scores), class_names, title)
    written.append(folder / SUMMARY)
    files.write_json(written[-1], summary)
    return written


def _prediction_header(scores: Scores) -> list[str]:
    listed = min(LISTED, scores.classes)
    more = [f"{column}{rank}" for rank in range(2, listed + 1) for column in ("predicted", "probability")]
    return ["key", "true", "predicted", "probability", "correct", "true_probability", "true_rank", *more]


def _prediction_rows(scores: Scores, class_names: Sequence[str]) -> Iterator[list[Any]]:
    """Give a line an image, the most probable classes after it; ranks count from 1."""
    top = scores.top(LISTED)
    for i, key in enumerate(scores.keys):
        probabilities, label = scores.probabilities[i], int(scores.labels[i])
        if scores.predicted[i] < 0:
            yield [key, class_names[label], "", "", 0, *[""] * (len(_prediction_header(scores)) - 5)]
            continue
        listed = [(class_names[j], f"{probabilities[j]:.6f}") for j in top[i]]
        true = [f"{probabilities[label]:.6f}", int(scores.ranks[i]) + 1]
        more = [cell for pair in listed[1:] for cell in pair]
        yield [key, class_names[label], *listed[0], int(top[i][0] == label), *true, *more]


def images_text(summary: Mapping[str, Any]) -> str:
    """Name the images that figures are of: split, dataset, and how the split came about."""
    source = summary["dataset"]["data"] or summary["dataset"]["name"]
    return f"{summary['split']} of {source}" + (f", {summary['origin']}" if summary["origin"] else "")
