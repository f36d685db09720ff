"""Average the measurements of images per run, explainer and class, and write the result files."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import numpy as np

from fgvc_cli import files
from fgvc_cli._version import __version__
from fgvc_cli.contracts import Split
from fgvc_cli.explaining.explainers import NamedExplainer
from fgvc_cli.explaining.masking import Masking
from fgvc_cli.explaining.measuring import Measurements
from fgvc_cli.scoring.model import ReadyClassifier
from fgvc_cli.scoring.results import SUMMARY, dataset_record

T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True)
class Figures(Generic[T]):
    """The figures of an explanation: of each image (arrays of N, NaN where one does not apply), or their means.

    Attributes:
        probability_before, probability_after: of the explained class, unmasked and at the last occlusion step.
        true_probability_before, true_probability_after: of the true class.
        flipped: 1 if the predicted class is another one at the last step.
        right_before: 1 if the unmasked image is classified correctly.
        survived: of the images classified correctly, 1 if the last step is too.
        covered: fraction of the image masked at the last step.
        marked: fraction of the image with saliency above 0.
        deletion_auc, insertion_auc, average_drop: see `faithfulness`.
        pointing, pointing_any: hits of the pointing game, on parts that decide the class and on any part.
        pointing_chance, pointing_chance_any: expected hits of a random point.
        pointing_gain, pointing_gain_any: hits minus those expected by chance, which has less variance than a
            comparison with the hits of a single random map.
    """

    probability_before: T
    probability_after: T
    true_probability_before: T
    true_probability_after: T
    flipped: T
    right_before: T
    survived: T
    covered: T
    marked: T
    deletion_auc: T
    insertion_auc: T
    average_drop: T
    pointing: T
    pointing_any: T
    pointing_chance: T
    pointing_chance_any: T
    pointing_gain: T
    pointing_gain_any: T

    def map(self, function: Callable[[T], U]) -> Figures[U]:
        """Apply a function to each figure."""
        return Figures(*(function(value) for value in self.as_json().values()))

    def as_json(self) -> dict[str, T]:
        """Return the figures by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


COLUMNS = tuple(field.name for field in fields(Figures) if not field.name.startswith("pointing_gain"))
"""The figures in the columns of both tables."""
COUNTS = ("images", "right_images", "pointing_images", "pointing_any_images", "nothing_marked")
COMPARED = (
    "probability_after", "flipped", "deletion_auc", "insertion_auc", "average_drop", "pointing", "pointing_any",
)  # fmt: skip
"""The figures that are compared with the random map's, image by image."""


def per_image(measured: Measurements) -> Figures[np.ndarray]:
    """Compute the figures of each image, float64 N."""
    predicted, labels = measured.predicted.numpy(), measured.labels.numpy()
    probability, true_probability = measured.probability.double().numpy(), measured.true_probability.double().numpy()
    right = predicted[:, 0] == labels
    pointing, chance = measured.pointing.double().numpy(), measured.chance.double().numpy()
    pointing_any, chance_any = measured.pointing_any.double().numpy(), measured.chance_any.double().numpy()
    return Figures(
        probability_before=probability[:, 0],
        probability_after=probability[:, -1],
        true_probability_before=true_probability[:, 0],
        true_probability_after=true_probability[:, -1],
        flipped=(predicted[:, -1] != predicted[:, 0]).astype(np.float64),
        right_before=right.astype(np.float64),
        survived=np.where(right, predicted[:, -1] == labels, np.nan),
        covered=measured.masked.double().numpy()[:, -1],
        marked=measured.salient.double().numpy(),
        deletion_auc=measured.deletion.double().numpy(),
        insertion_auc=measured.insertion.double().numpy(),
        average_drop=measured.drop.double().numpy(),
        pointing=pointing,
        pointing_any=pointing_any,
        pointing_chance=chance,
        pointing_chance_any=chance_any,
        pointing_gain=pointing - chance,
        pointing_gain_any=pointing_any - chance_any,
    )


def finite(measured: Measurements) -> np.ndarray:
    """Return which images count, bool N: those whose scores are finite."""
    of_scores = (
        measured.probability, measured.true_probability, measured.deletion, measured.insertion, measured.drop,
    )  # fmt: skip
    return np.logical_and.reduce([t.isfinite().reshape(len(measured), -1).all(1).numpy() for t in of_scores])


@dataclass(frozen=True)
class Totals:
    """The figures of some images.

    Attributes:
        images: number of images.
        means: over the images that each figure applies to; None if there is none.
        right_images, survived_images, flipped_images: number of images with a 1 in each figure.
        pointing_images, pointing_any_images: number of images with a (deciding) part within the crop.
        nothing_marked: number of images whose saliency map is flat, which sets it to zero.
        standard_errors: of the means; None with fewer than two images.
    """

    images: int
    means: Figures[float | None]
    right_images: int
    survived_images: int
    flipped_images: int
    pointing_images: int
    pointing_any_images: int
    nothing_marked: int
    standard_errors: Figures[float | None]

    @classmethod
    def of(cls, figures: Figures[np.ndarray], rows: np.ndarray) -> Totals:
        """Compute them for the images selected by `rows`, bool N."""
        values = figures.map(lambda array: array[rows])
        return cls(
            images=int(rows.sum()),
            means=values.map(_mean),
            right_images=int(values.right_before.sum()),
            survived_images=int(np.nansum(values.survived)),
            flipped_images=int(values.flipped.sum()),
            pointing_images=int(np.isfinite(values.pointing).sum()),
            pointing_any_images=int(np.isfinite(values.pointing_any).sum()),
            nothing_marked=int((values.marked == 0).sum()),
            standard_errors=values.map(_standard_error),
        )

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form: means and counts on one level."""
        counts = {field.name: getattr(self, field.name) for field in fields(self)}
        means, errors = counts.pop("means"), counts.pop("standard_errors")
        return {"images": counts.pop("images"), **means.as_json(), **counts, "standard_errors": errors.as_json()}


@dataclass(frozen=True)
class StepMeans:
    """Means of an occlusion step; see `Figures`."""

    covered: float | None
    probability: float | None
    true_probability: float | None
    flipped: float | None
    survived: float | None


def by_step(measured: Measurements, rows: np.ndarray) -> list[StepMeans]:
    """Average the images selected by `rows` (bool N) at each occlusion step, the unmasked images first."""
    predicted, labels = measured.predicted.numpy()[rows], measured.labels.numpy()[rows]
    right = predicted[:, 0] == labels
    masked, probability, true_probability = (
        t.numpy()[rows] for t in (measured.masked, measured.probability, measured.true_probability)
    )
    return [
        StepMeans(
            covered=_mean(masked[:, step]),
            probability=_mean(probability[:, step]),
            true_probability=_mean(true_probability[:, step]),
            flipped=_mean(predicted[:, step] != predicted[:, 0]),
            survived=_mean((predicted[:, step] == labels)[right]),
        )
        for step in range(predicted.shape[1])
    ]


@dataclass(frozen=True)
class Difference:
    """The mean paired difference between two explainers over the same images, with its standard error."""

    difference: float | None
    standard_error: float | None


def _mean(values: np.ndarray) -> float | None:
    counted = values[~np.isnan(values)] if values.dtype.kind == "f" else values
    return float(counted.mean(dtype=np.float64)) if len(counted) else None


def _standard_error(values: np.ndarray) -> float | None:
    counted = values[np.isfinite(values)]
    return float(counted.std(ddof=1) / math.sqrt(len(counted))) if len(counted) > 1 else None


@dataclass(frozen=True)
class ExplainerMeasurements:
    """The measurements of one run and one explainer.

    Attributes:
        ready: the run's classifier.
        explainer: that computed the maps.
        is_baseline: whether it is the baseline of the comparison, the random map.
        split: the images.
        measured: of the images that could be read.
    """

    ready: ReadyClassifier
    explainer: NamedExplainer
    is_baseline: bool
    split: Split
    measured: Measurements

    @property
    def class_names(self) -> Sequence[str]:
        """The class names of the run."""
        return self.ready.classifier.class_names


@dataclass(frozen=True)
class ExplainerSummary:
    """The figures of one run and one explainer.

    Attributes:
        run: the run folder or model file.
        explainer, options: its name, and its options as TOML values.
        is_baseline: whether it is the random map.
        totals: over all images with finite scores.
        not_finite: number of images with non-finite scores; they enter no figure.
        steps: means for each occlusion step.
        over_random: differences to the random map by figure (see `COMPARED`); None for the random map itself.
        per_class: totals of each class with images, by name, in the order of the classifier.
    """

    run: str
    explainer: str
    options: Mapping[str, Any]
    is_baseline: bool
    totals: Totals
    not_finite: int
    steps: Sequence[StepMeans]
    over_random: Mapping[str, Difference] | None
    per_class: Mapping[str, Totals]

    @classmethod
    def of(cls, scored: ExplainerMeasurements, baseline: ExplainerMeasurements | None) -> ExplainerSummary:
        """Average measurements and compare them with those of the baseline."""
        measured, names = scored.measured, scored.class_names
        figures, rows, labels = per_image(measured), finite(measured), measured.labels.numpy()
        over = None
        if baseline is not None and not scored.is_baseline:
            both = rows & finite(baseline.measured)
            ours, theirs = figures.as_json(), per_image(baseline.measured).as_json()
            differences = {name: ours[name][both] - theirs[name][both] for name in COMPARED}
            over = {name: Difference(_mean(array), _standard_error(array)) for name, array in differences.items()}
        return cls(
            run=str(scored.ready.run),
            explainer=scored.explainer.name,
            options=dict(scored.explainer.options),
            is_baseline=scored.is_baseline,
            totals=Totals.of(figures, rows),
            not_finite=int((~rows).sum()),
            steps=by_step(measured, rows),
            over_random=over,
            per_class={names[c]: Totals.of(figures, rows & (labels == c)) for c in np.unique(labels[rows])},
        )

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form: totals and the rest on one level."""
        over = self.over_random
        return {
            "run": self.run,
            "explainer": self.explainer,
            "options": dict(self.options),
            "is_baseline": self.is_baseline,
            **self.totals.as_json(),
            "not_finite": self.not_finite,
            "steps": [asdict(step) for step in self.steps],
            "over_random": None if over is None else {name: asdict(value) for name, value in over.items()},
            "per_class": [{"class": name, **totals.as_json()} for name, totals in self.per_class.items()],
        }


Reason = Literal["largest drop", "survived", "hit", "miss"]


@dataclass(frozen=True)
class GalleryImage:
    """An example image, and why it was selected.

    Attributes:
        key: its name in the split.
        file: None if the dataset holds it in memory.
        run: the run folder or model file.
        explainer: that computed the saliency map.
        true, predicted: class names.
        reason: why it was selected.
        words: the reason as a sentence with figures.
    """

    key: str
    file: Path | None
    run: Path
    explainer: str
    true: str
    predicted: str
    reason: Reason
    words: str

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {**asdict(self), "file": None if self.file is None else str(self.file), "run": str(self.run)}


@dataclass(frozen=True)
class DatasetSummary:
    """The figures of a dataset explanation, as in `summary.json`.

    Attributes:
        dataset, data: name of the dataset, and the folder or file that it reads.
        split, origin: name of the split, and how it was made.
        notes: what to know when reading the figures.
        images_available, images_chosen: number of images of the split, and of those selected.
        chosen: how they were selected.
        target: the explained class: "predicted", "true" or the name of a class.
        masking: how the occlusion steps mask the images.
        cover_steps: number of occlusion steps.
        curve_steps: number of steps of the deletion and insertion curves.
        tolerance: of the pointing game, in sides of the crop.
        interrupted: whether some images are missing because of Ctrl-C.
        explainers: one entry for each run and explainer.
        failures: why images could not be read, by key.
        seconds: wall time.
        device, precision: of the computation.
        gallery: the example images.
    """

    dataset: str
    data: Path | None
    split: str
    origin: str
    notes: Sequence[str]
    images_available: int
    images_chosen: int
    chosen: str
    target: str
    masking: Masking
    cover_steps: int
    curve_steps: int
    tolerance: float
    interrupted: bool
    explainers: Sequence[ExplainerSummary]
    failures: Mapping[str, str]
    seconds: float
    device: str
    precision: str
    gallery: Sequence[GalleryImage]

    @property
    def runs(self) -> list[str]:
        """The runs, without duplicates."""
        return list(dict.fromkeys(entry.run for entry in self.explainers))

    @property
    def images_measured(self) -> int:
        """Number of images that could be read and were measured before an interruption."""
        return max(entry.totals.images + entry.not_finite for entry in self.explainers)

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form; fractions are in [0, 1], missing figures are None."""
        return {
            "runs": self.runs,
            "dataset": dataset_record(self.dataset, self.data),
            "split": self.split,
            "origin": self.origin,
            "notes": list(self.notes),
            "images_available": self.images_available,
            "images_chosen": self.images_chosen,
            "chosen": self.chosen,
            "target": self.target,
            "cover": asdict(self.masking),
            "cover_steps": self.cover_steps,
            "curve_steps": self.curve_steps,
            "tolerance": self.tolerance,
            "interrupted": self.interrupted,
            "explainers": [entry.as_json() for entry in self.explainers],
            "failures": [{"key": key, "reason": reason} for key, reason in self.failures.items()],
            "seconds": round(self.seconds, 3),
            "device": self.device,
            "precision": self.precision,
            "fgvc": __version__,
            "gallery": [image.as_json() for image in self.gallery],
        }


IMAGES, PER_CLASS = "images.csv", "per_class.csv"


def write(folder: Path, summary: DatasetSummary, scored: Sequence[ExplainerMeasurements]) -> list[Path]:
    """Write the result files, each atomically and the summary last, and return them.

    Raises:
        FgvcError: the folder cannot be written to.
    """
    written = [folder / IMAGES, folder / PER_CLASS, folder / SUMMARY]
    head = ["run", "explainer", "key", "true", "predicted", "after", "explained", *COLUMNS]
    files.write_csv(written[0], head, _rows(scored))
    columns = (*COUNTS, *COLUMNS)
    classes = (
        [entry.run, entry.explainer, name, *map(totals.as_json().get, columns)]
        for entry in summary.explainers
        for name, totals in entry.per_class.items()
    )
    files.write_csv(written[1], ["run", "explainer", "class", *columns], classes)
    files.write_json(written[2], summary.as_json())
    return written


def _rows(scored: Sequence[ExplainerMeasurements]) -> Iterator[list[Any]]:
    """Yield a row for each run, explainer and image; figures that do not apply are empty cells."""
    for entry in scored:
        measured, names = entry.measured, entry.class_names
        figures = per_image(measured).as_json()
        for row, index in enumerate(measured.indices.tolist()):
            predicted = measured.predicted[row]
            classes = (measured.labels[row], predicted[0], predicted[-1], measured.targets[row])
            values = (float(figures[name][row]) for name in COLUMNS)
            yield [
                str(entry.ready.run),
                entry.explainer.name,
                entry.split.keys[index],
                *(names[int(c)] for c in classes),
                *("" if math.isnan(value) else f"{value:.6g}" for value in values),
            ]
