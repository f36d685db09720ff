"""From the figures of images to those of a study: in total, by class, and beside the random map."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fgvc_cli.explaining.measuring import Measured

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
