"""The files of an evaluation: summary, predictions, per-class metrics and confusion matrix."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fgvc_cli import files, viz
from fgvc_cli._version import __version__
from fgvc_cli.config.renamed import current
from fgvc_cli.contracts import Preprocessing, Split
from fgvc_cli.devices import describe_device
from fgvc_cli.errors import FgvcError
from fgvc_cli.files import csv_text, write_csv
from fgvc_cli.formatting import html_table, percent
from fgvc_cli.runs.results import CLASS_COLUMNS, SplitMetrics, split_metrics_arguments
from fgvc_cli.scoring.calibration.metrics import CalibratedMetrics, UnknownMetrics
from fgvc_cli.scoring.scores import Scores, confusion_matrix, split_metrics
from fgvc_cli.scoring.taxonomy import TaxonomyMetrics

SUMMARIZED = 10
"""Number of confused pairs and confident mistakes in a summary."""


@dataclass(frozen=True)
class ConfusedPair:
    """Images of one class that were classified as another.

    Attributes:
        true, predicted: names of the classes.
        images: number of images.
        share: fraction of the images of the true class.
    """

    true: str
    predicted: str
    images: int
    share: float


@dataclass(frozen=True)
class Mistake:
    """A wrongly classified image.

    Attributes:
        key: name of the image in its split.
        true, predicted: names of the classes.
        probability: of the predicted class.
        probability_true: of the true class.
        file: path of the image; None if it is not a file.
    """

    key: str
    true: str
    predicted: str
    probability: float
    probability_true: float
    file: str | None = None


@dataclass(frozen=True, kw_only=True)
class EvaluationSummary(SplitMetrics):
    """`summary.json` of an evaluation: the metrics, what was evaluated on which images, and where.

    Attributes:
        runs: paths of the runs; several if their predictions were averaged.
        dataset: "name", and "data": the folder or file it was read from, or None.
        split: name of the split.
        origin: where the split comes from: "official", "drawn (seed 0)".
        notes: what a user should know when reading the metrics.
        most_confused: pairs of classes with the most mistakes.
        most_confident_mistakes: wrongly classified images with the highest probability.
        failures: why an image could not be read, by its key.
        seconds: wall time.
        device: name of the device.
        precision: "fp32" or "bf16".
        preprocessing: fields of `Preprocessing`; None for several runs, each of which has its own.
        tta: test-time augmentation: "flip", "crops", "sizes"; empty without.
        taxonomy: metrics of groups of classes; None without a taxonomy.
        calibrated: metrics of the calibrated probabilities and answers; None without a calibration. The other metrics
            are of the probabilities before calibration.
        unknown: metrics of images of unknown classes; None without such images.
        version: of fgvc.
    """

    runs: tuple[str, ...] = ()
    dataset: Mapping[str, str | None]
    split: str
    origin: str = ""
    notes: Sequence[str] = ()
    most_confused: Sequence[ConfusedPair] = ()
    most_confident_mistakes: Sequence[Mistake] = ()
    failures: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    device: str = ""
    precision: str = "fp32"
    preprocessing: Mapping[str, Any] | None = None
    tta: Sequence[str] = ()
    taxonomy: TaxonomyMetrics | None = None
    calibrated: CalibratedMetrics | None = None
    unknown: UnknownMetrics | None = None
    version: str = __version__

    @property
    def images_text(self) -> str:
        """The images that the metrics are of; see `images_text`."""
        return images_text({"split": self.split, "dataset": self.dataset, "origin": self.origin})

    def _repr_html_(self) -> str:
        """Show the metrics in a notebook."""
        shares = {"top-1": self.top1, "top-5": self.top5, "macro F1": self.macro_f1}
        rows = [(name, percent(value)) for name, value in shares.items() if value is not None]
        return html_table(
            [("run", ", ".join(self.runs)), ("split", self.images_text), ("images", str(self.images)), *rows]
        )

    def as_json(self) -> dict[str, Any]:
        """Return the form that `summary.json` has."""
        return {
            **({"run": self.runs[0]} if len(self.runs) == 1 else {"runs": list(self.runs)}),
            "dataset": dict(self.dataset),
            "split": self.split,
            "origin": self.origin,
            "notes": list(self.notes),
            **super().as_json(),
            "most_confused": [asdict(pair) for pair in self.most_confused],
            "most_confident_mistakes": [asdict(mistake) for mistake in self.most_confident_mistakes],
            "failures": [{"key": key, "reason": reason} for key, reason in self.failures.items()],
            "seconds": self.seconds,
            "device": self.device,
            "precision": self.precision,
            **({} if self.preprocessing is None else {"preprocessing": dict(self.preprocessing)}),
            **({"tta": list(self.tta)} if self.tta else {}),
            **({} if self.taxonomy is None else {"taxonomy": self.taxonomy.as_json()}),
            **({} if self.calibrated is None else {"calibrated": asdict(self.calibrated)}),
            **({} if self.unknown is None else {"unknown": self.unknown.as_json()}),
            "fgvc": self.version,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> EvaluationSummary:
        """Undo `as_json`.

        Raises:
            KeyError, TypeError, AttributeError: something is missing or has another type.
        """
        plain = ("dataset", "split", "origin", "notes", "seconds", "device", "precision", "tta")
        fields, taxonomy = document.get("preprocessing"), document.get("taxonomy")
        calibrated, unknown = document.get("calibrated"), document.get("unknown")
        return EvaluationSummary(
            **split_metrics_arguments(document),
            **{name: document[name] for name in plain if name in document},
            preprocessing=None if fields is None else current("preprocessing", fields),
            runs=tuple(document["runs"] if "runs" in document else [document["run"]]),
            most_confused=[ConfusedPair(**pair) for pair in document.get("most_confused", ())],
            most_confident_mistakes=[Mistake(**mistake) for mistake in document.get("most_confident_mistakes", ())],
            taxonomy=None if taxonomy is None else TaxonomyMetrics.from_json(taxonomy),
            calibrated=None if calibrated is None else CalibratedMetrics(**calibrated),
            unknown=None if unknown is None else UnknownMetrics.from_json(unknown),
            failures={failure["key"]: failure["reason"] for failure in document.get("failures", ())},
            version=document.get("fgvc", ""),
        )

    @classmethod
    def read(cls, path: Path) -> EvaluationSummary:
        """Read a `summary.json`.

        Raises:
            FgvcError: it is missing or damaged.
        """
        return files.read_as(path, cls.from_json, files.DELETE_ADVICE)


def summarize(
    scores: Scores,
    class_names: Sequence[str],
    split: Split,
    *,
    runs: Sequence[Path],
    dataset: str,
    data: Path | None,
    device: torch.device,
    precision: str,
    notes: Sequence[str] = (),
    preprocessing: Preprocessing | None = None,
    tta: Sequence[str] = (),
    taxonomy: TaxonomyMetrics | None = None,
) -> EvaluationSummary:
    """Summarize an evaluation; see `EvaluationSummary` for the arguments."""
    images = dict(zip(split.keys, split.images, strict=True))
    mistakes = most_confident_mistakes(scores, class_names, SUMMARIZED)
    metrics = split_metrics(scores, class_names)
    return EvaluationSummary(
        **{f.name: getattr(metrics, f.name) for f in fields(metrics)},
        runs=tuple(map(str, runs)),
        dataset=dataset_record(dataset, data),
        split=split.name,
        origin=split.origin,
        notes=tuple(notes),
        most_confused=most_confused(scores, class_names, SUMMARIZED),
        most_confident_mistakes=[
            replace(m, file=str(image) if isinstance(image := images[m.key], Path) else None) for m in mistakes
        ],
        failures=scores.failures,
        seconds=round(scores.seconds, 3),
        device=describe_device(device),
        precision=precision,
        preprocessing=None if preprocessing is None else asdict(preprocessing),
        tta=tuple(tta),
        taxonomy=taxonomy,
    )


def most_confused(scores: Scores, class_names: Sequence[str], n: int = 10) -> list[ConfusedPair]:
    """Return the n pairs of classes with the most mistakes, most first; at equal numbers the larger share first."""
    classes = scores.classes
    wrong = (scores.predicted >= 0) & (scores.predicted != scores.labels)
    # Only pairs that occur: a dense matrix of ten thousand classes would take 800 MB.
    codes, counts = np.unique(scores.labels[wrong] * classes + scores.predicted[wrong], return_counts=True)
    shares = counts / np.bincount(scores.labels, minlength=classes)[codes // classes]
    order = np.lexsort((codes, -shares, -counts))[:n]
    return [
        ConfusedPair(
            class_names[codes[i] // classes], class_names[codes[i] % classes], int(counts[i]), float(shares[i])
        )
        for i in order
    ]


def most_confident_mistakes(scores: Scores, class_names: Sequence[str], n: int = 10) -> list[Mistake]:
    """Return the n wrongly classified images with the highest probability of the predicted class, highest first."""
    wrong = np.flatnonzero((scores.predicted >= 0) & (scores.predicted != scores.labels))
    order = wrong[np.argsort(-scores.confidence[wrong], kind="stable")][:n]
    return [
        Mistake(
            scores.keys[i],
            class_names[scores.labels[i]],
            class_names[scores.predicted[i]],
            float(scores.confidence[i]),
            float(scores.probabilities[i, scores.labels[i]]),
        )
        for i in order
    ]


def dataset_record(name: str, data: Path | None) -> dict[str, str | None]:
    """Return what a summary records of a dataset: its name, and the folder or file that it was read from."""
    return {"name": name, "data": None if data is None else str(data)}


SUMMARY, PREDICTIONS, PER_CLASS, CONFUSION = "summary.json", "predictions.csv", "per_class.csv", "confusion.png"
SHARPNESS = "sharpness.json"
"""What a sharpness measurement writes to the same folder."""

LISTED = 5
"""Number of classes in a row of `predictions.csv`."""
DRAWN_CLASSES = 2000
"""Maximum number of classes for which the confusion matrix is drawn; with more, a class is smaller than a pixel."""


def write(
    folder: Path, summary: EvaluationSummary, scores: Scores, class_names: Sequence[str], draw: bool = True
) -> list[Path]:
    """Write the files of an evaluation atomically, the summary last, and return their paths."""
    written = [folder / PREDICTIONS, folder / PER_CLASS]
    write_csv(written[0], _prediction_header(scores), _prediction_rows(scores, class_names))
    write_csv(written[1], CLASS_COLUMNS, (list(row.as_json().values()) for row in summary.per_class))
    if draw and scores.classes <= DRAWN_CLASSES:
        written.append(folder / CONFUSION)
        title = f"{summary.split}: top-1 {percent(summary.top1)} on {summary.images} images"
        viz.confusion_matrix(written[-1], confusion_matrix(scores), class_names, title)
    written.append(folder / SUMMARY)
    files.write_json(written[-1], summary.as_json())
    return written


def _prediction_header(scores: Scores) -> list[str]:
    listed = min(LISTED, scores.classes)
    more = [f"{column}{rank}" for rank in range(2, listed + 1) for column in ("predicted", "probability")]
    return ["key", "true", "predicted", "probability", "correct", "true_probability", "true_rank", *more]


def _prediction_rows(scores: Scores, class_names: Sequence[str]) -> Iterator[list[Any]]:
    """Yield a row per image with its most probable classes; ranks count from 1."""
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
    """Return the split, the dataset and the origin of the split of a summary: "test of photos, drawn (seed 0)"."""
    source = summary["dataset"]["data"] or summary["dataset"]["name"]
    return f"{summary['split']} of {source}" + (f", {summary['origin']}" if summary["origin"] else "")


@dataclass(frozen=True)
class Prediction:
    """The prediction for a labeled image.

    Attributes:
        key: name of the image in the split.
        true, predicted: class names; `predicted` is empty if the scores were not finite.
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
    """Read the `predictions.csv` of an evaluation.

    Raises:
        FgvcError: the file is damaged.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [
                Prediction(
                    csv_text(row["key"]),
                    csv_text(row["true"]),
                    csv_text(row["predicted"]),
                    float(row["probability"] or "nan"),
                    float(row["true_probability"] or "nan"),
                )
                for row in csv.DictReader(file)
            ]
    except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
        raise FgvcError(f"{path} is damaged ({error}); delete it to evaluate again") from error
