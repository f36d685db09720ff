"""`fgvc explain`: explain images with saliency maps, or measure the maps over a dataset."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fgvc_cli.cli import common_options as common
from fgvc_cli.cli import console
from fgvc_cli.cli.common_options import component_names, option
from fgvc_cli.cli.console import JsonDocument
from fgvc_cli.cli.tables import figure_table, next_lines
from fgvc_cli.config.train_options import MANY
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.formatting import counted, percent, quoted
from fgvc_cli.runs.folder import CONFIG_FILE

if TYPE_CHECKING:
    from rich.table import Table

    from fgvc_cli.explaining.dataset import DatasetExplanationRequest
    from fgvc_cli.explaining.explanation import ExplainedImage, OcclusionStep
    from fgvc_cli.explaining.masking import Masking
    from fgvc_cli.scoring.model import InferenceSettings

EXAMPLE = "fgvc explain photo.jpg --occlude --steps 2"
EXPLAINING, OCCLUSION, DATASET, RESULTS = (
    "Explanation",
    "Occlusion test",
    "Over a dataset, instead of IMAGES",
    "Results",
)
DEFAULT_EXPLAINER = "gradcam"


def explain(
    images: Annotated[
        list[Path] | None,
        typer.Argument(metavar="IMAGES", help="Image files, and folders to search for images."),
    ] = None,
    run: Annotated[
        list[Path] | None,
        option(
            EXPLAINING,
            "Run folder or model.safetensors. Can be given several times, to compare runs.",
            default="the latest finished run",
        ),
    ] = None,
    explainer: Annotated[
        list[str] | None,
        option(
            EXPLAINING,
            "Explainer, by name. Can be given several times, to compare explainers.",
            default=DEFAULT_EXPLAINER,
            autocompletion=component_names("explainer"),
        ),
    ] = None,
    target: Annotated[
        str, option(EXPLAINING, "Class to explain: predicted, true (labeled images only), or the name of a class.")
    ] = "predicted",
    versus: Annotated[
        str | None,
        option(
            EXPLAINING,
            "Name of a class to compare with: why this class and not that one. Images only.",
            default=False,
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        option(
            EXPLAINING,
            f"An option, as explainer.option=value or dataset.option=value. {common.SEVERAL}",
            "--set",
        ),
    ] = None,
    occlude: Annotated[
        bool,
        option(OCCLUSION, "Mask the most salient pixels, predict again, and explain the new prediction.", "--occlude"),
    ] = False,
    steps: Annotated[int | None, option(OCCLUSION, "Number of occlusion steps.", default="1", min=1, max=1000)] = None,
    cover: Annotated[
        str | None,
        option(OCCLUSION, "Fill of masked pixels: mean (the mean color of the image), blur or gray.", default="mean"),
    ] = None,
    cover_area: Annotated[
        float | None,
        option(OCCLUSION, "Fraction of the image that a step masks, above 0 and at most 1.", default="0.2"),
    ] = None,
    cover_threshold: Annotated[
        float | None,
        option(
            OCCLUSION,
            "Instead of a fraction: mask pixels with saliency at or above this value, above 0 and at most 1.",
            default=False,
        ),
    ] = None,
    data: Annotated[Path | None, common.data_option(DATASET)] = None,
    dataset: Annotated[str | None, common.dataset_option(DATASET)] = None,
    split: Annotated[str | None, common.split_option(DATASET, "explain")] = None,
    limit: Annotated[
        int | None,
        option(DATASET, "Maximum number of images, balanced across classes.", default="all", min=1, max=MANY),
    ] = None,
    class_: Annotated[
        list[str] | None, option(DATASET, f"Only images of this class. {common.SEVERAL}", "--class")
    ] = None,
    differ: Annotated[
        bool,
        option(
            DATASET, "Only images that the first of two runs classifies correctly and the second does not.", "--differ"
        ),
    ] = False,
    ignore_unknown: Annotated[bool, common.ignore_unknown_option(DATASET)] = False,
    allow_changed_data: Annotated[bool, common.allow_changed_data_option(DATASET)] = False,
    device: common.Device = "auto",
    precision: Annotated[str, option(common.COMPUTING, "fp32, bf16 or auto, of gradients too.")] = "fp32",
    batch_size: common.BatchSize = 32,
    workers: common.Workers = -1,
    out: Annotated[
        Path | None,
        option(
            RESULTS,
            "Folder for the pictures, or for the results over a dataset.",
            default="the current folder; explanation/SPLIT in the run",
        ),
    ] = None,
    force: Annotated[bool, option(RESULTS, "Overwrite existing pictures or results.", "--force")] = False,
    json: Annotated[bool, option(RESULTS, "Print one JSON document.", "--json")] = False,
) -> None:
    """Explain predictions with saliency maps.

    For images: draw a panel of each, the photograph and its saliency map.

    With --versus CLASS: draw the maps of both classes and of what tells them apart.

    With --occlude: test whether the prediction survives when the most salient pixels are masked.

    Over a dataset: measure how faithful the saliency maps are.

    Exit code 3: done, but some images were skipped; 1: all were.

    """
    from fgvc_cli.explaining.explainers import explainer_settings
    from fgvc_cli.explaining.masking import Masking
    from fgvc_cli.scoring.model import InferenceSettings, find_model

    settings, others = explainer_settings(set_ or [])
    of_dataset = {
        "--data": data, "--dataset": dataset, "--split": split, "--limit": limit, "--class": class_,
        "--differ": differ, "--ignore-unknown": ignore_unknown, "--allow-changed-data": allow_changed_data,
        "--set dataset": others,
    }  # fmt: skip
    of_test = {"--steps": steps, "--cover": cover, "--cover-area": cover_area, "--cover-threshold": cover_threshold}
    _check_options(bool(images), of_dataset, of_test, occlude)
    if versus is not None and not images:
        raise UsageError("--versus compares two classes in the pictures of IMAGES, not over a dataset; give images")
    if differ and len(set(run or [])) != 2:
        raise UsageError("--differ compares two runs; name them with --run A --run B")
    if cover_area is not None and cover_threshold is not None:
        raise UsageError("--cover-area and --cover-threshold exclude each other")
    given = {"fill": cover, "area": cover_area, "threshold": cover_threshold}
    masking = Masking(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    inference = InferenceSettings(device, precision, batch_size, workers)
    explainers = explainer or [DEFAULT_EXPLAINER]
    models = list(dict.fromkeys(map(find_model, run))) if run else [find_model(None)]
    if images:
        explain_images(
            images, models, explainers, settings, target, versus, masking if occlude else None, steps or 1, inference,
            out, force, json,
        )  # fmt: skip
        return
    from fgvc_cli.config.run_config import dataset_settings
    from fgvc_cli.evaluation.split_selection import SplitRequest
    from fgvc_cli.explaining.dataset import DatasetExplanationRequest

    request = DatasetExplanationRequest(
        models=models,
        split=SplitRequest(
            split, data, dataset, dataset_settings(others), ignore_unknown, allow_changed_data=allow_changed_data
        ),
        explainers=explainers,
        settings=settings,
        target=target,
        masking=masking,
        steps=steps or 1,
        limit=limit,
        classes=class_ or [],
        differ=differ,
        inference=inference,
        out=out,
        force=force,
    )
    explain_dataset(request, json)


def _check_options(has_images: bool, of_dataset: Mapping[str, Any], of_test: Mapping[str, Any], occlude: bool) -> None:
    """Refuse options of a dataset and of the occlusion test that would be ignored."""
    dataset_options = [name for name, value in of_dataset.items() if value]
    if has_images and dataset_options:
        raise UsageError(f"IMAGES and {dataset_options[0]} exclude each other; give images or a dataset")
    if not has_images and not dataset_options:
        raise UsageError(
            "nothing to explain; give images (fgvc explain photo.jpg --occlude), or a dataset with --data, --dataset "
            "or --split"
        )
    test_options = [name for name, value in of_test.items() if value is not None]
    if has_images and test_options and not occlude:
        raise UsageError(f"{test_options[0]} is an option of the occlusion test; add --occlude")


def explain_images(
    paths: Sequence[Path],
    models: Sequence[Path],
    explainers: Sequence[str],
    settings: Mapping[str, Any],
    target: str,
    versus: str | None,
    masking: Masking | None,
    steps: int,
    inference: InferenceSettings,
    out: Path | None,
    force: bool,
    json: bool,
) -> None:
    """Explain images; on an interruption or a full disk, print what is done.

    Raises:
        FgvcError: no image could be explained, or a picture could not be written.
        typer.Exit: 3 if some images were skipped; 130 if interrupted.
    """
    from fgvc_cli.data.images import ImageError
    from fgvc_cli.data.inputs import find_inputs
    from fgvc_cli.explaining.explainers import make_explainers
    from fgvc_cli.explaining.explanation import ImageExplanations, InputImage, true_class
    from fgvc_cli.explaining.panels import PANEL_SUFFIX, panel_files, write_panel
    from fgvc_cli.registry import get_registry
    from fgvc_cli.scoring.model import load

    built = make_explainers(explainers, settings, get_registry())
    found, failures = find_inputs(paths)
    named = set(paths)
    images = [path for path in found if path in named or not path.name.lower().endswith(PANEL_SUFFIX)]
    panels = dict(zip(map(str, images), panel_files(images, out, force), strict=True))
    runs = [load(model, inference) for model in models]
    inputs = [InputImage(str(path), path, true_class(path, runs[0].classifier.class_names)) for path in images]
    explanations = ImageExplanations(runs, built, inputs, target, masking, steps if masking else 0, versus, failures)
    for ready in runs:
        console.note(f"run        {ready.run}")
    for line in dict.fromkeys(line for ready in runs for e in built for line in e.notes(ready.classifier)):
        console.note(line)
    if len(found) > len(images):
        console.note(f"skipping {counted(len(found) - len(images), 'earlier picture')} (*{PANEL_SUFFIX})")
    for name, reason in failures.items():
        console.warn(f"skipping {name}: {reason}")
    request = {
        "runs": [str(ready.run) for ready in runs],
        "explainers": [{"name": e.name, "options": dict(e.options)} for e in built],
        "target": target,
        **({} if versus is None else {"versus": versus}),
        "occlusion": None if masking is None else {**vars(masking), "steps": steps},
    }
    writer, explained = ExplanationWriter(request, json), 0
    try:
        with console.progress("explain", len(explanations.images)) as bar:
            for batch in explanations:
                for image in batch:
                    try:
                        write_panel(panels[image.input.name], image)
                    except ImageError as error:
                        failures[image.input.name] = error.cause
                        console.warn(f"skipping {error}")
                    else:
                        writer.image(image, panels[image.input.name])
                        explained += 1
                    bar.advance()
    except KeyboardInterrupt:
        console.note(f"interrupted after {explained} of {counted(len(explanations.images), 'image')}")
        raise typer.Exit(130) from None
    finally:
        writer.close(failures)
    if explained == 0:
        raise FgvcError("no image could be explained, see above")
    if failures:
        raise typer.Exit(3)


def explain_dataset(request: DatasetExplanationRequest, json: bool) -> None:
    """Explain a dataset, print the figures and draw the gallery.

    Raises:
        FgvcError: it failed.
        typer.Exit: 3 if some images could not be read; 130 if interrupted.
    """
    from fgvc_cli.cli.explanation_tables import gallery_lines, show_dataset_explanation
    from fgvc_cli.explaining import dataset
    from fgvc_cli.registry import get_registry
    from fgvc_cli.scoring.model import run_of

    for model in request.models:
        console.note(f"run        {run_of(model)}")
    result = dataset.explain_dataset(request, get_registry())
    if json:
        console.print_json(result.summary.as_json())
    else:
        show_dataset_explanation(result)
    if result.summary.interrupted:
        raise typer.Exit(130)
    # after the figures, so that they are shown even if drawing is interrupted or the disk is full
    pictures = dataset.draw_gallery(result, request, get_registry())
    if not json:
        for line in gallery_lines(pictures, result.summary.gallery):
            console.out().print(line, soft_wrap=True)
    if result.summary.failures:
        raise typer.Exit(3)


class ExplanationWriter:
    """Writes explained images to standard output: tables, or one JSON document, image by image.

    Args:
        request: the settings, at the start of the JSON document.
        json: whether to write the document instead of tables.

    Nothing of an image is kept but its name.
    """

    def __init__(self, request: Mapping[str, Any], json: bool) -> None:
        self._request, self._document = request, JsonDocument(request, "images") if json else None
        self._count, self._first = 0, ("", Path())
        self._survived: dict[str, Counter[bool]] = {}

    def image(self, explained: ExplainedImage, picture: Path) -> None:
        """Write an explained image and the path of its picture."""
        from fgvc_cli.explaining.explanation import decision_sentence

        if not self._count:
            self._first = explained.input.name, picture
        self._count += 1
        labeled = list(zip(explained.labels(), explained.explanations, strict=True))
        for label, explanation in labeled:
            if explanation.survived is not None:
                self._survived.setdefault(label, Counter())[explanation.survived] += 1
        if self._document is not None:
            self._document.add({**explained.as_json(), "picture": str(picture)})
            sys.stdout.flush()
            return
        out, true_class = console.out(), explained.input.true_class
        known = f"   true class: {true_class}" if true_class else ""
        out.print(f"{explained.input.name}{known}", style="bold", soft_wrap=True)
        out.print(image_table(explained))
        for label, explanation in labeled:
            if explained.masking is not None:
                prefix = f"{label}: " if len(labeled) > 1 else ""
                out.print(prefix + decision_sentence(explanation, true_class), soft_wrap=True)
        out.print(f"picture: {quoted(str(picture))}\n", soft_wrap=True)
        sys.stdout.flush()  # so that a killed process leaves what was explained

    def close(self, failures: Mapping[str, str]) -> None:
        """Write the end: of the JSON document, or in how many images the prediction survived and the next commands."""
        if self._document is not None:
            failed = [{"image": image, "reason": reason} for image, reason in failures.items()]
            self._document.close({"failures": failed})
        elif self._count:
            for line in self._closing_lines():
                console.out().print(line, soft_wrap=True)

    def _closing_lines(self) -> list[str]:
        lines = []
        if self._count > 1:
            for label, survived in self._survived.items():
                prefix = f"{label}: " if len(self._survived) > 1 else ""
                lines.append(f"{prefix}The prediction survived in {survived[True]} of {survived.total()} images.")
            lines.append(f"pictures: {self._count} in {quoted(str(self._first[1].parent.absolute()))}/")
        occluded = self._request["occlusion"] is not None
        commands = next_commands(self._first[0], self._request["runs"], occluded)
        return lines + next_lines(commands)


def next_commands(image: str, runs: Sequence[str], occluded: bool) -> list[str]:
    """Return the commands that most users would run next."""
    named = " ".join(f"--run {quoted(run)}" for run in runs)
    commands = [] if occluded else [f"fgvc explain {quoted(image)} {named} --occlude"]
    if (Path(runs[0]) / CONFIG_FILE).is_file():  # it names the dataset
        commands.append(f"fgvc explain --limit 100 {named} --occlude")
    return commands


def image_table(explained: ExplainedImage) -> Table:
    """Return a table with a row for each occlusion step; columns that would add nothing are omitted."""
    explanations, true_class = explained.explanations, explained.input.true_class
    several_steps = any(len(e.steps) > 1 for e in explanations)
    other_target = any(step.target not in (step.predicted, true_class) for e in explanations for step in e.steps)
    columns = {
        "explained by": len(explanations) > 1,
        "step": several_steps,
        "masked": several_steps,
        "predicted": True,
        "probability": True,
        "of the true class": true_class is not None,
        "map of": other_target,
        "its probability": other_target,
        "versus": any(e.contrast for e in explanations),
    }
    words = ("explained by", "predicted", "map of", "versus")
    table = figure_table(*(name if name in words else f"{name}:" for name, is_shown in columns.items() if is_shown))
    for label, explanation in zip(explained.labels(), explanations, strict=True):
        for number, step in enumerate(explanation.steps):
            other = explanation.contrast[1] if explanation.contrast and number == 0 else None
            cells = _cells(label if number == 0 else "", number, step, other)
            table.add_row(*(cell for cell, is_shown in zip(cells, columns.values(), strict=True) if is_shown))
    return table


def _cells(label: str, number: int, step: OcclusionStep, versus: OcclusionStep | None) -> list[str]:
    return [
        label,
        str(number),
        percent(step.masked) if number else "nothing",
        step.predicted,
        percent(step.probability),
        percent(step.true_probability),
        step.target,
        percent(step.target_probability),
        "" if versus is None else f"{versus.target} ({percent(versus.target_probability)})",
    ]
