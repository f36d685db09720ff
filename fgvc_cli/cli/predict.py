"""`fgvc predict`: predict the top-k classes of images."""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol

import typer

from fgvc_cli.cli import common_options as common
from fgvc_cli.cli import console
from fgvc_cli.cli.common_options import option
from fgvc_cli.config.train_options import MANY
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.files import csv_cell
from fgvc_cli.formatting import counted, percent, printable, quoted

if TYPE_CHECKING:
    from fgvc_cli.evaluation.predict import Prediction
    from fgvc_cli.scoring.model import InferenceSettings, ReadyClassifier

EXAMPLE = "fgvc predict photo.jpg holiday/ --top-k 3 --csv > classes.csv"
RESULTS = "Results"
UNKNOWN = ["unknown (uncertain)", "unknown (unfamiliar)"]
"""Answers in a table where there is none."""
MAX_NAME = 60
"""Maximum width of the column of file names; a longer name gets its own line."""


def predict(
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGES", help="Image files, and folders to search for images.")
    ],
    run: common.Run = None,
    device: common.Device = "auto",
    precision: common.Precision = "auto",
    batch_size: common.BatchSize = 32,
    workers: common.Workers = -1,
    tta: common.Tta = None,
    sets: Annotated[
        bool, option(common.CALIBRATION, "Prediction sets of a calibrated run in place of the top-k.", "--sets")
    ] = False,
    no_calibration: common.NoCalibration = False,
    sure: Annotated[float | None, common.sure_option(False)] = None,
    taxonomy: common.TaxonomyFile = None,
    top_k: Annotated[int, option(RESULTS, "Number of classes per image.", min=1, max=MANY)] = 5,
    json: Annotated[bool, option(RESULTS, "Print one JSON document.", "--json")] = False,
    csv: Annotated[bool, option(RESULTS, "Print CSV, one line per image.", "--csv")] = False,
) -> None:
    """Predict the top-k classes of images.

    A calibrated run (fgvc calibrate) answers "unknown" where it is uncertain or the image is unfamiliar.

    With --sure 0.9, also the lowest class or group of classes whose probability is 0.9 or more: a gull, species unsure.

    Images that cannot be read are reported and skipped.

    Exit code 3: some images were skipped; 1: all were.

    """
    from fgvc_cli.data.inputs import find_inputs
    from fgvc_cli.evaluation.predict import Predictions
    from fgvc_cli.scoring.model import InferenceSettings, find_model, load, run_of
    from fgvc_cli.scoring.taxonomy import TaxonomySettings, find_names

    if json and csv:
        raise UsageError("--json and --csv exclude each other")
    groups = TaxonomySettings(taxonomy, sure)
    found, failures = find_inputs(images)
    for path, reason in failures.items():
        console.warn(f"skipping {path}: {reason}")
    model_file = find_model(run)
    console.note(f"run        {run_of(model_file)}")
    inference = InferenceSettings(device, precision, batch_size, workers, tta, not no_calibration)
    ready = load(model_file, inference, exported=True)
    if sets:
        _check_sets(ready, inference)
    class_names = ready.classifier.class_names
    names = find_names(ready.model_file, class_names, groups)
    calibrated = ready.calibration is not None
    for line in ready.calibration.lines if ready.calibration is not None else ():
        console.note(line)
    writer: PredictionWriter
    if json:
        writer = PredictionJson(ready.run)
    else:
        writer = (
            PredictionCsv(min(top_k, len(class_names)), names is not None, calibrated, sets)
            if csv
            else PredictionTable(
                found, [*class_names, *([] if names is None else names.texts), *(UNKNOWN * calibrated)]
            )
        )
    count, answered, total = 0, 0, len(found) + len(failures)
    try:
        with console.progress("predict", len(found)) as bar:
            for predictions in Predictions(ready, found, top_k, failures, names, sets):
                writer.batch(predictions)
                sys.stdout.flush()  # so that a killed process leaves what was predicted
                bar.advance(len(predictions))
                count += len(predictions)
                answered += sum(not prediction.reason for prediction in predictions)
    except KeyboardInterrupt:
        console.note(f"interrupted after {count} of {counted(len(found), 'image')}")
        raise typer.Exit(130) from None
    finally:
        writer.close(failures)
    if count and calibrated:
        console.note(f"answered {answered} of {counted(count, 'image')} ({percent(answered / count)})")
    if count == 0:
        raise FgvcError("no image could be classified, see above")
    if failures:
        console.warn(f"skipped {len(failures)} of {counted(total, 'image')}, see above")
        raise typer.Exit(3)


def _check_sets(ready: ReadyClassifier, inference: InferenceSettings) -> None:
    """Refuse `--sets` without a calibration that has some."""
    from fgvc_cli.runs.exported import is_exported

    if ready.calibration is not None and ready.calibration.sets is not None:
        return
    if not inference.calibrated:
        raise UsageError("--sets needs the calibration, which --no-calibration ignores")
    if is_exported(ready.classifier):
        raise UsageError(
            f"--sets needs a calibration with prediction sets, and {ready.model_file} has none for this prediction: "
            "calibrate the run that it was exported from (fgvc calibrate RUN), and export it again"
        )
    views = f" --tta {','.join(ready.views.names)}" if ready.views.names else ""
    raise UsageError(f"--sets needs a calibration with prediction sets: fgvc calibrate {quoted(str(ready.run))}{views}")


class PredictionWriter(Protocol):
    """Writes predictions to standard output as they are computed, so that none are kept in memory."""

    def batch(self, predictions: Sequence[Prediction]) -> None:
        """Write the predictions of some images."""

    def close(self, failures: Mapping[str, str]) -> None:
        """Write the end; `failures` has the reason for each image without a prediction."""


class PredictionTable:
    """A line per class: the image, its top-k classes or prediction set, with probabilities.

    Above them are the answer "unknown", if that is it, and the name that is sure.

    Args:
        images: all files, for the width of their column.
        class_names: what the column of classes may have, for its width.
    """

    def __init__(self, images: Sequence[Path], class_names: Sequence[str]) -> None:
        widest = max((len(str(image)) for image in images), default=0)
        self._image_width = max(len("image"), min(MAX_NAME, widest))
        self._class_width = max(len("class"), max(map(len, class_names), default=0))
        self._started = False

    def batch(self, predictions: Sequence[Prediction]) -> None:
        """Print the classes of some images."""
        if predictions and not self._started:
            self._line("image", "class", "probability", style="bold")
            self._started = True
        for prediction in predictions:
            image = prediction.image
            if len(image) > self._image_width:
                self._line(image, "", "")
                image = ""
            lines = list(prediction.classes if prediction.set is None else prediction.set)
            if prediction.sure is not None:
                unsure = prediction.sure.name is None
                lines.insert(0, (prediction.sure.text, float("nan") if unsure else prediction.sure.probability))
            if prediction.reason:
                lines.insert(0, (f"unknown ({prediction.reason})", float("nan")))
            for rank, (name, probability) in enumerate(lines):
                shown = "" if math.isnan(probability) else percent(probability)
                self._line("" if rank else image, name, shown, style="dim" if rank else None)

    def close(self, failures: Mapping[str, str]) -> None:
        """Print nothing more: failures were reported when they occurred."""

    def _line(self, image: str, name: str, probability: str, style: str | None = None) -> None:
        image, name = printable(image), printable(name)
        text = f"{image:<{self._image_width}}  {name:<{self._class_width}}  {probability:>11}"
        console.out().print(text.rstrip(), style=style, soft_wrap=True)


class PredictionCsv:
    """A CSV line per image: `image`, then `class_1`, `probability_1` to `class_k`, `probability_k`.

    With `sure`, three more columns: `sure_level`, `sure_name` (both empty if no group is sure) and `sure_probability`.
    If the run is `calibrated`, `answer` and `reason`; with `sets`, `set`: its classes with `|` between them.
    """

    def __init__(self, top_k: int, sure: bool, calibrated: bool, sets: bool) -> None:
        self._writer = csv.writer(sys.stdout, lineterminator="\n")
        columns = [f"{column}_{rank}" for rank in range(1, top_k + 1) for column in ("class", "probability")]
        columns += ["sure_level", "sure_name", "sure_probability"] * sure
        self._writer.writerow(["image", *columns, *(["answer", "reason"] * calibrated), *(["set"] * sets)])

    def batch(self, predictions: Sequence[Prediction]) -> None:
        """Write a line per image."""
        for prediction in predictions:
            cells = [cell for name, probability in prediction.classes for cell in (name, f"{probability:.6f}")]
            if (sure := prediction.sure) is not None:
                cells += [sure.level or "", sure.name or "", f"{sure.probability:.6f}"]
            if prediction.answer is not None:
                cells += [prediction.answer, prediction.reason]
            if prediction.set is not None:
                cells.append("|".join(name for name, _ in prediction.set))
            self._writer.writerow([csv_cell(cell) for cell in (prediction.image, *cells)])

    def close(self, failures: Mapping[str, str]) -> None:
        """Write nothing more: images without a prediction have no line."""


class PredictionJson:
    """One JSON document: the run, a prediction for each image, and the failures."""

    def __init__(self, run: Path) -> None:
        self._document = console.JsonDocument({"run": str(run)}, "predictions")

    def batch(self, predictions: Sequence[Prediction]) -> None:
        """Write an object per image."""
        for prediction in predictions:
            self._document.add(prediction.as_json())

    def close(self, failures: Mapping[str, str]) -> None:
        """Write the failures and the end of the document."""
        failed = [{"image": image, "reason": reason} for image, reason in failures.items()]
        self._document.close({"failures": failed})
