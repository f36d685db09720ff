"""The files that a study leaves: a summary, a line an image, and a line a class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fgvc_cli.evaluation.results import SUMMARY
from fgvc_cli.explaining.study_figures import by_image
from fgvc_cli.explaining.study_summary import Scored
from fgvc_cli.runs import files
from fgvc_cli.runs.tables import write_csv

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
