"""`fgvc predict`: predict the top-k classes of images."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Protocol

import typer

from fgvc_cli.cli import common_options as common
from fgvc_cli.cli.console import out
from fgvc_cli.formatting import percent

if TYPE_CHECKING:
    from fgvc_cli.evaluation.predict import Predicting, Prediction


NAME_WIDTH = 60
"""Columns that a file's name takes at most; a longer one has a line to itself."""


class PredictionWriter(Protocol):
    """Writes predictions to standard output as they come, so that none need be kept."""

    def batch(self, predictions: Sequence[Prediction]) -> None:
        """Write the predictions of some images."""

    def close(self, failures: Mapping[str, str]) -> None:
        """Write what comes after the last one; `failures` says why an image got none, by file."""


def prediction_writer(form: Literal["table", "csv", "json"], predicting: Predicting) -> PredictionWriter:
    """Return what writes predictions in that form."""
    class_names = predicting.ready.classifier.class_names
    if form == "csv":
        return PredictionCsv(min(predicting.top_k, len(class_names)))
    if form == "json":
        return PredictionJson(predicting.ready.run)
    return PredictionTable(predicting.images, class_names)


class PredictionTable:
    """A line a class: the image, its likeliest classes and their probabilities.

    Args:
        images: all files, for the width of their column.
        class_names: for the width of theirs.
    """

    def __init__(self, images: Sequence[Path], class_names: Sequence[str]) -> None:
        widest = max((len(str(image)) for image in images), default=0)
        self._image_width = max(len("image"), min(NAME_WIDTH, widest))
        self._class_width = max(len("class"), max(map(len, class_names), default=0))
        self._started = False

    def batch(self, predictions: Sequence[Prediction]) -> None:
        """Print some images' classes."""
        for prediction in predictions:
            if not self._started:
                self._line("image", "class", "probability", style="bold")
                self._started = True
            image = prediction.image
            if len(image) > self._image_width:
                self._line(image, "", "")
                image = ""
            for rank, (name, probability) in enumerate(prediction.classes):
                self._line("" if rank else image, name, percent(probability), style=None if rank == 0 else "dim")

    def close(self, failures: Mapping[str, str]) -> None:
        """Print nothing more: what failed has been named already."""

    def _line(self, image: str, name: str, probability: str, style: str | None = None) -> None:
        text = f"{image:<{self._image_width}}  {name:<{self._class_width}}  {probability:>11}"
        out().print(text.rstrip(), style=style, soft_wrap=True)


class PredictionCsv:
    """A CSV line an image: `image`, then `class_1`, `probability_1`, ... down to the k-th."""

    def __init__(self, top_k: int) -> None:
        self._writer = csv.writer(sys.stdout, lineterminator="\n")
        ranks = range(1, top_k + 1)
        self._writer.writerow(["image", *(f"{column}_{rank}" for rank in ranks for column in ("class", "probability"))])

    def batch(self, predictions: Sequence[Prediction]) -> None:
        """Write a line an image."""
        for prediction in predictions:
            cells = [cell for name, probability in prediction.classes for cell in (name, f"{probability:.6f}")]
            self._writer.writerow([prediction.image, *cells])

    def close(self, failures: Mapping[str, str]) -> None:
        """Write nothing more: a line is a prediction."""


class PredictionJson:
    """One JSON document, written bit by bit: the run, a prediction for each image, and what failed."""

    def __init__(self, run: Path) -> None:
        sys.stdout.write(f'{{\n  "run": {json.dumps(str(run))},\n  "predictions": [')
        self._separator = "\n    "

    def batch(self, predictions: Sequence[Prediction]) -> None:
        """Write an object an image."""
        for prediction in predictions:
            classes = [{"class": name, "probability": round(p, 6)} for name, p in prediction.classes]
            sys.stdout.write(self._separator + json.dumps({"image": prediction.image, "classes": classes}))
            self._separator = ",\n    "

    def close(self, failures: Mapping[str, str]) -> None:
        """Write the failures, and end the document."""
        failed = [{"image": image, "reason": reason} for image, reason in failures.items()]
        end = "]" if self._separator == "\n    " else "\n  ]"
        sys.stdout.write(f'{end},\n  "failures": {json.dumps(failed)}\n}}\n')


EXAMPLE = "fgvc predict photo.jpg holiday/ --top-k 3 --csv > classes.csv"
RESULTS = "Results"


def predict(
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGES", help="Image files, and folders that are searched for them.")
    ],
    run: common.Run = None,
    device: common.Device = "auto",
    precision: common.Precision = "auto",
    batch_size: common.BatchSize = 32,
    workers: common.Workers = -1,
    top_k: Annotated[int, typer.Option(min=1, help="Classes to name for each image.", rich_help_panel=RESULTS)] = 5,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.", rich_help_panel=RESULTS)] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV, a line an image.", rich_help_panel=RESULTS)] = False,
) -> None:
    """Name the likeliest classes of images.

    Images that cannot be read are named and left out.

    Exit code 3: some were left out; 1: all were.

    """
    from fgvc_cli.cli import console

    pass
    from fgvc_cli.errors import FgvcError, UsageError
    from fgvc_cli.evaluation.predict import Predicting, find_inputs
    from fgvc_cli.scoring.model import Computing, find_model, load, run_of

    if json and csv:
        raise UsageError("--json and --csv: choose one of them.")
    inputs = find_inputs(images)
    for path, reason in inputs.failures.items():
        console.warn(f"left out: {path}: {reason}.")
    model_file = find_model(run)
    console.note(f"run        {run_of(model_file)}")
    ready = load(model_file, Computing(device, precision, batch_size, workers))

    predicting = Predicting(ready, inputs.images, top_k, dict(inputs.failures))
    writer = prediction_writer("json" if json else "csv" if csv else "table", predicting)
    with console.progress("predict", len(inputs.images)) as bar:
        for predictions in predicting:
            writer.batch(predictions)
            bar.advance(len(predictions))
    writer.close(predicting.failures)
    if predicting.predicted == 0:
        raise FgvcError("No image got a prediction: see above.")
    if predicting.failures:
        console.warn(
            f"{len(predicting.failures)} of {len(inputs.images) + len(inputs.failures)} left out, named above."
        )
        raise typer.Exit(3)
