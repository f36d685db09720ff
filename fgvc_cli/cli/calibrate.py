"""`fgvc calibrate`: learn from validation images when a run should not answer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from fgvc_cli.cli import common_options as common
from fgvc_cli.cli.common_options import option

if TYPE_CHECKING:
    from fgvc_cli.scoring.calibration.novelty import ScoreName

EXAMPLE = "fgvc calibrate runs/RUN --precision 0.95"
PROMISES, IMAGES, RESULTS = "What to promise", "Images", "Results"


def calibrate(
    run_argument: Annotated[
        Path | None,
        typer.Argument(metavar="RUN", help="Run folder or model.safetensors.", show_default="the latest finished run"),
    ] = None,
    run: Annotated[Path | None, typer.Option(help="The same, as an option.", show_default=False)] = None,
    precision: Annotated[
        float | None,
        option(PROMISES, "Precision of the answers, such as 0.95: less probable images are unknown.", default=False),
    ] = None,
    confidence: Annotated[float, option(PROMISES, "Confidence level of --precision.")] = 0.95,
    coverage: Annotated[
        float | None,
        option(PROMISES, "Fraction of the prediction sets that contain the true class.", default="0.9"),
    ] = None,
    by_class: Annotated[
        bool, option(PROMISES, "Promise --coverage for each class, not on average.", "--by-class")
    ] = False,
    score: Annotated[
        str | None,
        option(
            PROMISES,
            "Score of familiarity: cosine, max_logit, energy, probability, or none.",
            default="cosine, or max_logit without the training images",
            metavar="NAME",
        ),
    ] = None,
    keep: Annotated[
        float | None,
        option(PROMISES, "Fraction of the images of known classes that are not unfamiliar.", default="0.95"),
    ] = None,
    split: Annotated[str | None, common.split_option(IMAGES, "calibrate on", "val")] = None,
    data: Annotated[Path | None, common.data_option(IMAGES)] = None,
    dataset: Annotated[str | None, common.dataset_option(IMAGES)] = None,
    set_: Annotated[
        list[str] | None, common.set_option(IMAGES, "An option of the dataset, as dataset.option=value.")
    ] = None,
    exclude: Annotated[Path | None, common.exclude_option(IMAGES)] = None,
    ignore_unknown: Annotated[bool, common.ignore_unknown_option(IMAGES)] = False,
    allow_changed_data: Annotated[bool, common.allow_changed_data_option(IMAGES)] = False,
    device: common.Device = "auto",
    batch_size: common.BatchSize = 32,
    workers: common.Workers = -1,
    tta: common.Tta = None,
    json: Annotated[bool, option(RESULTS, "Print the summary as JSON.", "--json")] = False,
) -> None:
    """Learn from validation images when a run should not answer.

    Fits a temperature, which makes probabilities honest, thresholds of probability and familiarity below which an image
    is unknown, and prediction sets. The model file keeps them; predict and evaluate use them.

    Exit code 3: done, but some images could not be read.

    """
    from fgvc_cli.cli import console
    from fgvc_cli.cli.calibration_tables import show_calibration
    from fgvc_cli.config.run_config import dataset_settings
    from fgvc_cli.evaluation.calibrate import calibrate_run
    from fgvc_cli.evaluation.calibration_fit import CalibrationSettings
    from fgvc_cli.evaluation.split_selection import SplitRequest
    from fgvc_cli.registry import get_registry
    from fgvc_cli.scoring.model import InferenceSettings, find_model, one_run, run_of

    model_file = find_model(one_run([given for given in (run_argument, run) if given is not None]))
    settings = CalibrationSettings(precision, confidence, coverage, by_class, cast("ScoreName | None", score), keep)
    options = dataset_settings(set_ or [])
    request = SplitRequest(
        split, data, dataset, options, ignore_unknown, allow_changed_data=allow_changed_data, exclude=exclude
    )
    inference = InferenceSettings(device, "auto", batch_size, workers, tta)
    console.note(f"run        {run_of(model_file)}")
    result = calibrate_run(model_file, get_registry(), settings, request, inference)
    if json:
        console.print_json(result.summary.as_json())
    else:
        show_calibration(result)
    if result.summary.failures:
        raise typer.Exit(3)
