"""From per-image scores to totals per run, class and explainer, and their files."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fgvc_cli import files
from fgvc_cli._version import __version__
from fgvc_cli.contracts import Split
from fgvc_cli.devices import describe_device
from fgvc_cli.evaluation.images import Subject
from fgvc_cli.explaining.explainers import NamedExplainer
from fgvc_cli.explaining.measuring import Measured
from fgvc_cli.explaining.request import StudyRequest
from fgvc_cli.explaining.selection import Chosen
from fgvc_cli.files import write_csv
from fgvc_cli.scoring.model import ReadyClassifier
from fgvc_cli.scoring.results import SUMMARY, dataset_record

COMPARED = (
    "probability_after",
    "flipped",
    "deletion_auc",
    "insertion_auc",
    "average_drop",
    "pointing",
    "pointing_any",
)
"""Figures that are set beside the random map's, image by image."""


def by_image(measured: Measured) -> dict[str, np.ndarray]:
    """Return what is averaged, as arrays of N; not a number where an image does not count.

    - probability_before, probability_after: of the explained class, as the image is and after the last covering.
    - true_probability_before, true_probability_after: of the true class.
    - flipped: 1 if the predicted class has changed after the last covering.
    - right_before: 1 if the true class was predicted at first.
    - survived: of those images alone, 1 if it is still predicted after the last covering.
    - covered: share of the image that is covered in the end.
    - marked: share of the image that the map marks at all.
    - deletion_auc, insertion_auc, average_drop: see `faithfulness`.
    - pointing, pointing_any, pointing_chance, pointing_chance_any: see `pointing`.
    - pointing_gain, pointing_gain_any: pointing less its chance, which is what a random map scores on average; nearer
      to the truth than one random map, whose own luck is left out.
    """
    arrays = {name: measured.array(name).astype(np.float64) for name in ("probability", "true_probability", "covered")}
    predicted, labels = measured.array("predicted"), measured.array("labels")
    right = predicted[:, 0] == labels
    figures = {
        "probability_before": arrays["probability"][:, 0],
        "probability_after": arrays["probability"][:, -1],
        "true_probability_before": arrays["true_probability"][:, 0],
        "true_probability_after": arrays["true_probability"][:, -1],
        "flipped": (predicted[:, -1] != predicted[:, 0]).astype(np.float64),
        "right_before": right.astype(np.float64),
        "survived": np.where(right, predicted[:, -1] == labels, np.nan),
        "covered": arrays["covered"][:, -1],
    }
    names = {
        "marked": "marked",
        "deletion_auc": "deletion",
        "insertion_auc": "insertion",
        "average_drop": "drop",
        "pointing": "pointing",
        "pointing_any": "pointing_any",
        "pointing_chance": "chance",
        "pointing_chance_any": "chance_any",
    }
    figures |= {name: measured.array(field).astype(np.float64) for name, field in names.items()}
    figures["pointing_gain"] = figures["pointing"] - figures["pointing_chance"]
    figures["pointing_gain_any"] = figures["pointing_any"] - figures["pointing_chance_any"]
    return figures


def finite(measured: Measured) -> np.ndarray:
    """Return which images count, bool N: those whose scores are all numbers."""
    names = ("probability", "true_probability", "deletion", "insertion", "drop")
    return np.logical_and.reduce(
        [np.isfinite(measured.array(name).reshape(len(measured), -1)).all(1) for name in names]
    )


def totals(figures: Mapping[str, np.ndarray], rows: np.ndarray) -> dict[str, Any]:
    """Return the figures of some images, all of which fit into JSON; see `by_image`.

    Each figure is the mean over the images that count for it, None if there is none. Beside them:

    - images: how many count. right_images, survived_images, flipped_images, pointing_images, pointing_any_images: how
      many there are of these (of the pointing game: how many have a part on the crop).
    - nothing_marked: images whose map marks nothing at all.
    - standard_errors: of each mean, by the same name; None below two images.

    Args:
        figures: as `by_image` returns them.
        rows: which images, bool N.
    """
    values = {name: array[rows] for name, array in figures.items()}
    return {
        "images": int(rows.sum()),
        **{name: _mean(array) for name, array in values.items()},
        "right_images": int(values["right_before"].sum()),
        "survived_images": int(np.nansum(values["survived"])),
        "flipped_images": int(values["flipped"].sum()),
        "pointing_images": int(np.isfinite(values["pointing"]).sum()),
        "pointing_any_images": int(np.isfinite(values["pointing_any"]).sum()),
        "nothing_marked": int((values["marked"] == 0).sum()),
        "standard_errors": {name: _standard_error(array) for name, array in values.items()},
    }


def by_step(measured: Measured, rows: np.ndarray) -> list[dict[str, Any]]:
    """Return means for the images as they are and after each covering.

    Each is {"covered", "probability", "true_probability", "flipped", "survived"}, as in `by_image`.
    """
    predicted, labels = measured.array("predicted")[rows], measured.array("labels")[rows]
    right = predicted[:, 0] == labels
    columns = {name: measured.array(name)[rows] for name in ("covered", "probability", "true_probability")}
    return [
        {
            **{name: _mean(array[:, step]) for name, array in columns.items()},
            "flipped": _mean(predicted[:, step] != predicted[:, 0]),
            "survived": _mean((predicted[:, step] == labels)[right]),
        }
        for step in range(predicted.shape[1])
    ]


def per_class(
    figures: Mapping[str, np.ndarray], labels: np.ndarray, rows: np.ndarray, class_names: Sequence[str]
) -> list[dict[str, Any]]:
    """Return {"class", **totals} for each class with images, in the classifier's order; `labels`: the true classes."""
    present = np.unique(labels[rows])
    return [{"class": class_names[label], **totals(figures, rows & (labels == label))} for label in present]


def beside(
    figures: Mapping[str, np.ndarray], baseline: Mapping[str, np.ndarray], rows: np.ndarray
) -> dict[str, dict[str, float | None]]:
    """Return how far figures lie from the baseline's: {"difference", "standard_error"} of the mean, image by image.

    Args:
        figures, baseline: of the same images, as `by_image` returns them.
        rows: which count, bool N.
    """
    differences = {name: figures[name][rows] - baseline[name][rows] for name in COMPARED}
    return {
        name: {"difference": _mean(array), "standard_error": _standard_error(array)}
        for name, array in differences.items()
    }


def _mean(values: np.ndarray) -> float | None:
    counted = values[~np.isnan(values)] if values.dtype.kind == "f" else values
    return float(counted.mean(dtype=np.float64)) if len(counted) else None


def _standard_error(values: np.ndarray) -> float | None:
    counted = values[np.isfinite(values)]
    return float(counted.std(ddof=1) / math.sqrt(len(counted))) if len(counted) > 1 else None


@dataclass(frozen=True)
class Scored:
    """What was measured with one run and one explainer.

    Attributes:
        ready: the run's classifier.
        explainer: whose maps they are.
        is_baseline: whether that is the random map.
        split: the images.
        class_names: the run's.
        measured: the figures of the images that could be read.
    """

    ready: ReadyClassifier
    explainer: NamedExplainer
    is_baseline: bool
    split: Split
    class_names: Sequence[str]
    measured: Measured

    @property
    def run(self) -> Path:
        """What a person names the run by."""
        return self.ready.run


def summarize(
    scored: Sequence[Scored],
    request: StudyRequest,
    subject: Subject,
    chosen: Chosen,
    failures: Mapping[str, str],
    interrupted: bool,
    seconds: float,
) -> dict[str, Any]:
    """Return what `summary.json` holds; all shares are fractions in [0, 1], figures that there are none of are None.

    `explainers` has an entry for each run and explainer: {"run", "explainer", "options", "is_baseline"}, the figures of
    `totals`, `not_finite` (images whose scores are not numbers; they enter no figure), `steps` (see `by_step`),
    `over_random` (see `beside`; not for the random map itself) and `per_class`.

    Args:
        scored: of all runs and explainers.
        request: what was asked for.
        subject, chosen: the images.
        failures: why images could not be read, by key.
        interrupted: whether it ended early.
        seconds: wall time.
    """
    first = scored[0].ready
    return {
        "runs": [str(run) for run in dict.fromkeys(entry.run for entry in scored)],
        "dataset": dataset_record(subject.dataset, subject.data),
        "split": subject.split.name,
        "origin": subject.split.origin,
        "notes": list(subject.notes),
        "images_available": chosen.available,
        "images_chosen": len(chosen.splits[0]),
        "chosen": chosen.how,
        "target": request.target,
        "cover": asdict(request.cover),
        "cover_steps": request.steps,
        "curve_steps": request.curve_steps,
        "tolerance": request.tolerance,
        "interrupted": interrupted,
        "explainers": [_entry(entry, _baseline(entry, scored)) for entry in scored],
        "failures": [{"key": key, "reason": reason} for key, reason in failures.items()],
        "seconds": round(seconds, 3),
        "device": describe_device(first.classifier.device),
        "precision": first.precision,
        "fgvc": __version__,
    }


def _baseline(entry: Scored, scored: Sequence[Scored]) -> Scored | None:
    return next((other for other in scored if other.is_baseline and other.run == entry.run), None)


def _entry(entry: Scored, baseline: Scored | None) -> dict[str, Any]:
    figures, rows = by_image(entry.measured), finite(entry.measured)
    over = None
    if baseline is not None and not entry.is_baseline:
        both = rows & finite(baseline.measured)
        over = beside(figures, by_image(baseline.measured), both)
    return {
        "run": str(entry.run),
        "explainer": entry.explainer.name,
        "options": dict(entry.explainer.options),
        "is_baseline": entry.is_baseline,
        **totals(figures, rows),
        "not_finite": int((~rows).sum()),
        "steps": by_step(entry.measured, rows),
        "over_random": over,
        "per_class": per_class(figures, entry.measured.array("labels"), rows, entry.class_names),
    }


IMAGES, PER_CLASS = "images.csv", "per_class.csv"

FIGURES = (
    "probability_before",
    "probability_after",
    "true_probability_before",
    "true_probability_after",
    "flipped",
    "right_before",
    "survived",
    "covered",
    "marked",
    "deletion_auc",
    "insertion_auc",
    "average_drop",
    "pointing",
    "pointing_any",
    "pointing_chance",
    "pointing_chance_any",
)
"""Columns of both tables: an image's figure, and the mean over a class; see `study_figures.by_image`."""
COUNTS = ("images", "right_images", "pointing_images", "pointing_any_images", "nothing_marked")


def write(folder: Path, summary: dict[str, Any], scored: Sequence[Scored]) -> list[Path]:
    """Write a study's files; each replaces its predecessor whole, the summary last.

    Args:
        folder: where to; it is made.
        summary: for `summary.json`.
        scored: what it is of.

    Returns:
        The files.

    Raises:
        FgvcError: the folder cannot be written.
    """
    written = [folder / IMAGES, folder / PER_CLASS, folder / SUMMARY]
    write_csv(
        written[0], ["run", "explainer", "key", "true", "predicted", "after", "explained", *FIGURES], _rows(scored)
    )
    classes = (
        [entry["run"], entry["explainer"], row["class"], *(row[name] for name in (*COUNTS, *FIGURES))]
        for entry in summary["explainers"]
        for row in entry["per_class"]
    )
    write_csv(written[1], ["run", "explainer", "class", *COUNTS, *FIGURES], classes)
    files.write_json(written[2], summary)
    return written


def _rows(scored: Sequence[Scored]) -> Iterator[list[Any]]:
    """Give a line for each run, explainer and image; a figure that an image does not have is an empty cell."""
    for entry in scored:
        measured, names = entry.measured, entry.class_names
        figures = by_image(measured)
        for row, index in enumerate(measured.indices.tolist()):
            classes = (
                measured.labels[row],
                measured.predicted[row, 0],
                measured.predicted[row, -1],
                measured.targets[row],
            )
            values = (float(figures[name][row]) for name in FIGURES)
            cells = ["" if value != value else f"{value:.6g}" for value in values]
            yield [
                str(entry.run),
                entry.explainer.name,
                entry.split.keys[index],
                *(names[int(c)] for c in classes),
                *cells,
            ]


Reason = Literal["largest drop", "survived", "hit", "miss"]


@dataclass(frozen=True)
class Telling:
    """An image that is worth a look, and why.

    Attributes:
        key: the image's name in the split.
        file: where it is; None where the dataset holds it in memory.
        run: the run that looked at it.
        explainer: whose map it is.
        true, predicted: class names.
        reason: why it was chosen.
        words: the same as a sentence with figures.
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
        """Return it as JSON has it."""
        file = None if self.file is None else str(self.file)
        return {**asdict(self), "file": file, "run": str(self.run)}


def most_telling(scored: Sequence[Scored], each: int) -> list[Telling]:
    """Return the most telling images of each run, by the first explainer that was asked for; none comes twice.

    - largest drop: the probability of the true class falls most when the most marked part is covered.
    - survived: the true class is predicted at first, and through most coverings (of something: a map that marks nothing
      covers nothing); of equals the one with the highest probability in the end.
    - hit, miss: where the parts are known, the map points at a deciding part, or at none of them; the surest first.

    Args:
        scored: of all runs and explainers.
        each: how many images of each kind, at most.
    """
    firsts: dict[Path, Scored] = {}
    for entry in scored:
        if entry.run not in firsts or (firsts[entry.run].is_baseline and not entry.is_baseline):
            firsts[entry.run] = entry
    return [telling for entry in firsts.values() for telling in _of_run(entry, each)]


def _of_run(scored: Scored, each: int) -> list[Telling]:
    figures, rows = by_image(scored.measured), finite(scored.measured)
    before, after = figures["true_probability_before"], figures["true_probability_after"]
    right, hit = figures["right_before"] == 1, figures["pointing"]
    kinds: list[tuple[Reason, np.ndarray, np.ndarray]] = [
        ("largest drop", rows & (before > after), before - after),
        ("survived", rows & right & (figures["covered"] > 0) & (_survived(scored) > 0), _survived(scored) + after),
        ("hit", rows & (hit >= 0.5), figures["probability_before"]),
        ("miss", rows & (hit == 0) & (figures["marked"] > 0), figures["probability_before"]),
    ]
    chosen: dict[int, Reason] = {}
    for reason, candidates, rank in kinds:
        free = [i for i in np.flatnonzero(candidates).tolist() if i not in chosen]
        best = sorted(free, key=lambda i: -rank[i])[:each]
        chosen.update(dict.fromkeys(best, reason))
    return [_telling(scored, figures, int(row), reason) for row, reason in chosen.items()]


def _survived(scored: Scored) -> np.ndarray:
    """Return through how many coverings the true class stays predicted without a break, int64 N."""
    predicted, labels = scored.measured.array("predicted"), scored.measured.array("labels")
    return np.cumprod(predicted[:, 1:] == labels[:, None], axis=1).sum(axis=1)


def _telling(scored: Scored, figures: dict[str, np.ndarray], row: int, reason: Reason) -> Telling:
    measured, split, names = scored.measured, scored.split, scored.class_names
    index = int(measured.indices[row])
    image = split.images[index]
    true, predicted = names[int(measured.labels[row])], names[int(measured.predicted[row, 0])]
    return Telling(
        split.keys[index],
        image if isinstance(image, Path) else None,
        scored.run,
        scored.explainer.name,
        true,
        predicted,
        reason,
        _words(reason, {name: float(values[row]) for name, values in figures.items()}, int(_survived(scored)[row])),
    )


def _words(reason: Reason, figures: dict[str, float], survived: int) -> str:
    before, after = figures["true_probability_before"], figures["true_probability_after"]
    covered = f"with {100 * figures['covered']:.0f} % covered"
    if reason == "largest drop":
        return f"true class from {100 * before:.0f} to {100 * after:.0f} % {covered}"
    if reason == "survived":
        times = f"{survived} covering{'' if survived == 1 else 's'}"
        return f"true class survives {times}: from {100 * before:.0f} to {100 * after:.0f} % {covered}"
    where = "at a deciding part" if reason == "hit" else "at no deciding part"
    return f"points {where}, {100 * figures['probability_before']:.0f} % sure"
