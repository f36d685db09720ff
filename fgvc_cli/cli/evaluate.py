"""`fgvc evaluate`: score a run on a split of its dataset, or on other images of the same classes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from fgvc_cli.cli import common_options as common
from fgvc_cli.cli.common_options import option
from fgvc_cli.config.train_options import MANY, MAX_SEED
from fgvc_cli.errors import UsageError

EXAMPLE = "fgvc evaluate runs/RUN --data other-photos/"
DEFAULT_SPLIT = "test, or val without one; with --sharpness the training split"
MODES, IMAGES, SHARPNESS, RESULTS = "Instead of the metrics of one run", "Images", "Sharpness", "Results"


def evaluate(
    run_argument: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="RUN",
            help="Run folder or model.safetensors; several with --ensemble or --sharpness.",
            show_default="the latest finished run",
        ),
    ] = None,
    run: Annotated[
        list[Path] | None,
        typer.Option(help=f"The same, as an option. {common.SEVERAL}", show_default=False),
    ] = None,
    ensemble: Annotated[bool, option(MODES, "Average the predictions of several runs.", "--ensemble")] = False,
    sharpness: Annotated[
        bool, option(MODES, "Measure how far the loss rises around the weights.", "--sharpness")
    ] = False,
    split: Annotated[str | None, common.split_option(IMAGES, "score", DEFAULT_SPLIT)] = None,
    data: Annotated[Path | None, common.data_option(IMAGES)] = None,
    dataset: Annotated[str | None, common.dataset_option(IMAGES)] = None,
    set_: Annotated[
        list[str] | None, common.set_option(IMAGES, "An option of the dataset, as dataset.option=value.")
    ] = None,
    exclude: Annotated[Path | None, common.exclude_option(IMAGES)] = None,
    ignore_unknown: Annotated[bool, common.ignore_unknown_option(IMAGES)] = False,
    allow_changed_data: Annotated[bool, common.allow_changed_data_option(IMAGES)] = False,
    rho: Annotated[float | None, option(SHARPNESS, "Radius, in the units of the weights.", default="0.05")] = None,
    adaptive_rho: Annotated[
        float | None,
        option(SHARPNESS, "Radius of an additional adaptive (ASAM) measure; ASAM trains with 0.5 to 2.", default=False),
    ] = None,
    limit: Annotated[
        int | None,
        option(SHARPNESS, "Maximum number of images, balanced across classes.", default="128", min=1, max=MANY),
    ] = None,
    points: Annotated[
        int | None,
        option(SHARPNESS, "Number of points along each side of the plane, odd.", default="13", min=3, max=1001),
    ] = None,
    seed: Annotated[
        int | None, option(SHARPNESS, "Seed of the random directions.", default="0", min=0, max=MAX_SEED)
    ] = None,
    device: common.Device = "auto",
    precision: common.Precision = "auto",
    batch_size: common.BatchSize = 32,
    workers: common.Workers = -1,
    tta: common.Tta = None,
    unknown: Annotated[
        str | None,
        option(
            common.CALIBRATION,
            "Folder of images of classes that the run does not know, or name of a dataset: how many are told apart.",
            default=False,
            metavar="FOLDER",
        ),
    ] = None,
    no_calibration: common.NoCalibration = False,
    sure: Annotated[float | None, common.sure_option("0.9 with a taxonomy")] = None,
    taxonomy: common.TaxonomyFile = None,
    out: Annotated[
        Path | None,
        option(
            RESULTS, "Folder for the results.", default="evaluation/SPLIT in the run; with several runs a new folder"
        ),
    ] = None,
    force: Annotated[bool, option(RESULTS, "Write into --out even if it exists.", "--force")] = False,
    per_class: Annotated[bool, option(RESULTS, "List every class, not only the worst ten.", "--per-class")] = False,
    json: Annotated[bool, option(RESULTS, "Print the summary as JSON.", "--json")] = False,
) -> None:
    """Score a run on a split or a folder.

    Prints top-1, top-5, precision, recall, F1 and the hardest classes, pairs and images; with a taxonomy also the
    accuracy of groups of classes and how far mistakes are from the truth; of a calibrated run also the share answered,
    the precision of the answers and the coverage of the prediction sets.

    Writes a summary, the predictions of each image and the confusion matrix.

    Alternatively averages several runs (--ensemble), or measures the loss around the weights (--sharpness).

    Exit code 3: done, but some images could not be read.

    """
    from fgvc_cli.cli import console
    from fgvc_cli.cli.evaluation_tables import show_ensemble, show_evaluation, show_sharpness
    from fgvc_cli.config.run_config import dataset_settings
    from fgvc_cli.evaluation.ensemble import evaluate_ensemble
    from fgvc_cli.evaluation.evaluate import evaluate_run
    from fgvc_cli.evaluation.run_sharpness import measure_sharpness
    from fgvc_cli.evaluation.sharpness import SharpnessSettings
    from fgvc_cli.evaluation.split_selection import SplitRequest
    from fgvc_cli.registry import get_registry
    from fgvc_cli.scoring.model import InferenceSettings, find_model, find_models, one_run, run_of
    from fgvc_cli.scoring.taxonomy import TaxonomySettings

    runs = [*(run_argument or []), *(run or [])]
    around: dict[str, Any] = {"rho": rho, "adaptive_rho": adaptive_rho, "limit": limit, "points": points, "seed": seed}
    given = {name: value for name, value in around.items() if value is not None}
    _check_options(len(runs), ensemble, sharpness, given, per_class)
    if tta and sharpness:
        raise UsageError("--sharpness measures the loss of single views; omit --tta")
    if (taxonomy is not None or sure is not None) and sharpness:
        raise UsageError("--sharpness has no metrics of groups; omit --taxonomy and --sure")
    if unknown is not None and (ensemble or sharpness):
        raise UsageError("--unknown is for a single run; omit --ensemble and --sharpness")
    groups = TaxonomySettings(taxonomy, sure)
    models = find_models(runs) if ensemble or sharpness else [find_model(one_run(runs))]
    settings = SharpnessSettings(**given)
    options = dataset_settings(set_ or [])
    wanted = SplitRequest(
        split, data, dataset, options, ignore_unknown, allow_changed_data=allow_changed_data, exclude=exclude
    )
    single = not (ensemble or sharpness)
    inference = InferenceSettings(device, precision, batch_size, workers, tta, single and not no_calibration)
    for model in models:
        console.note(f"run        {run_of(model)}")
    if sharpness:
        measured = measure_sharpness(models, get_registry(), settings, wanted, inference, out, force)
        if json:
            console.print_json(measured.as_json())
        else:
            show_sharpness(measured)
        if measured.interrupted:
            raise typer.Exit(130)
        failed = bool(measured.failures)
    else:
        evaluation = (
            evaluate_ensemble(models, get_registry(), wanted, inference, out, force, groups)
            if ensemble
            else evaluate_run(models[0], get_registry(), wanted, inference, out, force, groups, unknown)
        )
        if json:
            console.print_json(evaluation.summary.as_json())
        else:
            (show_ensemble if ensemble else show_evaluation)(evaluation, per_class)
        failed = bool(evaluation.summary.failed)
    if failed:
        raise typer.Exit(3)


def _check_options(runs: int, ensemble: bool, sharpness: bool, around: Mapping[str, Any], per_class: bool) -> None:
    """Refuse options that would be ignored; `runs` is the number of runs, `around` the given options of sharpness."""
    if ensemble and sharpness:
        raise UsageError("--ensemble and --sharpness exclude each other")
    if ensemble and runs < 2:
        raise UsageError("--ensemble averages several runs; name two or more: fgvc evaluate RUN RUN --ensemble")
    if around and not sharpness:
        raise UsageError(f"`{next(iter(around))}` is an option of the sharpness measurement; add --sharpness")
    if per_class and sharpness:
        raise UsageError("--sharpness has no metrics of classes; omit --per-class")
