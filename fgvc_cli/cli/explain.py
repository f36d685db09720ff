"""`fgvc explain`: saliency maps of images, or their scores over a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fgvc_cli.cli import common_options as common
from fgvc_cli.cli.completion import component_names

if TYPE_CHECKING:
    from fgvc_cli.explaining.request import ExplainRequest, SetRequest


def explain_dataset(request: ExplainRequest, wanted: SetRequest, json: bool) -> None:
    """Score explainers over a dataset.

    Raises:
        FgvcError: it cannot be done.
        typer.Exit: 3 if some images could not be read; 130 if it was interrupted.
    """
    from fgvc_cli.cli import console
    from fgvc_cli.cli.explanation_tables import gallery_lines, show_study
    from fgvc_cli.explaining.dataset import study
    from fgvc_cli.explaining.gallery import draw_gallery
    from fgvc_cli.registry import get_registry
    from fgvc_cli.scoring.model import run_of

    study_request = wanted.study(request)
    for model in study_request.models:
        console.note(f"run        {run_of(model)}")
    done = study(study_request, get_registry())
    if json:
        console.print_json(done.summary)
    else:
        show_study(done)
    if done.interrupted:
        raise typer.Exit(130)
    # after the figures, so that they are shown even if drawing is interrupted, or the disk is full
    pictures = draw_gallery(done, study_request, get_registry())
    if not json:
        for line in gallery_lines(pictures, done.gallery):
            console.out().print(line, soft_wrap=True)
    if done.failed:
        raise typer.Exit(3)


def explain_images(images: Sequence[Path], request: ExplainRequest, occlude: bool, json: bool) -> None:
    """Explain images; what is done when it is interrupted, or when the disk is full, is shown.

    Raises:
        FgvcError: no image could be explained, or a picture not be written.
        typer.Exit: 3 if some images were left out; 130 if it was interrupted.
    """
    from fgvc_cli.cli import console
    from fgvc_cli.cli.explanation_tables import ExplanationWriter
    from fgvc_cli.data.images import ImageError
    from fgvc_cli.errors import FgvcError
    from fgvc_cli.explaining.images import prepare_images
    from fgvc_cli.explaining.panels import write_panel
    from fgvc_cli.registry import get_registry

    prepared = prepare_images(images, request, occlude, get_registry())
    for line in prepared.notes:
        console.note(line)
    explaining, failures = prepared.explaining, prepared.explaining.failures
    for name, reason in failures.items():
        console.warn(f"left out: {name}: {reason}.")
    writer = ExplanationWriter(prepared.description, explaining.cover, json)
    explained = 0
    try:
        with console.progress("explain", len(explaining.subjects)) as bar:
            for batch in explaining:
                for image in batch:
                    picture = prepared.pictures[image.subject.name]
                    try:
                        write_panel(picture, image, explaining.cover)
                    except ImageError as error:
                        failures[image.subject.name] = error.cause
                        console.warn(f"left out: {error}")
                    else:
                        writer.image(image, picture)
                        explained += 1
                    bar.advance()
    except KeyboardInterrupt:
        console.note(f"interrupted after {explained} of {len(explaining.subjects)} images")
        raise typer.Exit(130) from None
    finally:
        writer.close(failures)
    if explained == 0:
        raise FgvcError("No image could be explained: see above.")
    if failures:
        raise typer.Exit(3)


EXAMPLE = "fgvc explain photo.jpg --occlude --steps 2"
EXPLAINING, OCCLUSION, SET, RESULTS = (
    "What is explained",
    "Occlusion test",
    "Over a dataset, instead of IMAGES",
    "Results",
)
DEFAULT_EXPLAINER = "gradcam"


def explain(
    images: Annotated[
        list[Path] | None,
        typer.Argument(metavar="IMAGES", help="Image files, and folders that are searched for them."),
    ] = None,
    run: Annotated[
        list[Path] | None,
        typer.Option(
            help="Run folder or model.safetensors. May be given several times, to compare runs.",
            show_default="the newest finished run",
            rich_help_panel=EXPLAINING,
        ),
    ] = None,
    explainer: Annotated[
        list[str] | None,
        typer.Option(
            help="What draws the heat map. May be given several times, to compare them.",
            show_default=DEFAULT_EXPLAINER,
            autocompletion=component_names("explainer"),
            rich_help_panel=EXPLAINING,
        ),
    ] = None,
    target: Annotated[
        str,
        typer.Option(
            help="Class that the map is of: predicted, true (of labeled images), or the name of a class.",
            rich_help_panel=EXPLAINING,
        ),
    ] = "predicted",
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="An option, as explainer.option=value or dataset.option=value. May be given several times.",
            rich_help_panel=EXPLAINING,
        ),
    ] = None,
    occlude: Annotated[
        bool,
        typer.Option(
            "--occlude",
            help="Cover what the map marks most, predict again, and draw the map again.",
            rich_help_panel=OCCLUSION,
        ),
    ] = False,
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="How often more is covered.", show_default="1", rich_help_panel=OCCLUSION),
    ] = None,
    cover: Annotated[
        str | None,
        typer.Option(
            help="What covers it: mean (the image's mean color), blur or gray.",
            show_default="mean",
            rich_help_panel=OCCLUSION,
        ),
    ] = None,
    cover_area: Annotated[
        float | None,
        typer.Option(
            help="Share of the image that a step covers, above 0 and at most 1.",
            show_default="0.2",
            rich_help_panel=OCCLUSION,
        ),
    ] = None,
    cover_threshold: Annotated[
        float | None,
        typer.Option(
            help="Instead of a share: cover what is marked at least so much, above 0 and at most 1.",
            show_default=False,
            rich_help_panel=OCCLUSION,
        ),
    ] = None,
    data: Annotated[Path | None, common.data_option(SET)] = None,
    dataset: Annotated[str | None, common.dataset_option(SET)] = None,
    split: Annotated[str | None, common.split_option(SET, "explain")] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            min=1, help="So many images at most, spread over the classes.", show_default="all", rich_help_panel=SET
        ),
    ] = None,
    class_: Annotated[
        list[str] | None,
        typer.Option("--class", help="Only images of this class. May be given several times.", rich_help_panel=SET),
    ] = None,
    differ: Annotated[
        bool,
        typer.Option(
            "--differ",
            help="Only images that the first of two runs gets right and the second wrong.",
            rich_help_panel=SET,
        ),
    ] = False,
    ignore_unknown: Annotated[bool, common.ignore_unknown_option(SET)] = False,
    device: common.Device = "auto",
    precision: Annotated[
        str, typer.Option(help="fp32, bf16 or auto; gradients like fp32.", rich_help_panel=common.COMPUTING)
    ] = "fp32",
    batch_size: common.BatchSize = 32,
    workers: common.Workers = -1,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the pictures, or for the results over a dataset.",
            show_default="the current folder; explanation/SPLIT in the run",
            rich_help_panel=RESULTS,
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace pictures or results that are there.", rich_help_panel=RESULTS)
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.", rich_help_panel=RESULTS)] = False,
) -> None:
    """Show what a decision rests on.

    For images, a picture each: the photograph and a heat map over it.

    With --occlude also: does the decision survive without what the map marks?

    Over a dataset, figures: how far the heat maps can be trusted.

    Exit code 3: done, but some images were left out; 1: all were.

    """
    pass
    pass
    from fgvc_cli.config.datasets import dataset_settings
    from fgvc_cli.evaluation.images import SubjectRequest
    from fgvc_cli.explaining.explainers import explainer_settings
    from fgvc_cli.explaining.request import ExplainRequest, SetRequest, covered, refuse_what_does_not_go_together
    from fgvc_cli.scoring.model import Computing

    over_set = {
        "--data": data, "--dataset": dataset, "--split": split, "--limit": limit, "--class": class_,
        "--differ": differ, "--ignore-unknown": ignore_unknown,
    }  # fmt: skip
    covering = {"--steps": steps, "--cover": cover, "--cover-area": cover_area, "--cover-threshold": cover_threshold}
    settings, others = explainer_settings(set_ or [])
    options = dataset_settings(others)
    refuse_what_does_not_go_together(images or [], run or [], {**over_set, "--set dataset": options}, covering, occlude)
    request = ExplainRequest(
        runs=run or [],
        explainers=explainer or [DEFAULT_EXPLAINER],
        settings=settings,
        target=target,
        cover=covered(cover, cover_area, cover_threshold),
        steps=steps or 1,
        computing=Computing(device, precision, batch_size, workers),
        out=out,
        force=force,
    )
    if images:
        explain_images(images, request, occlude, json)
    else:
        subject = SubjectRequest(split, data, dataset, options, ignore_unknown)
        explain_dataset(request, SetRequest(subject, limit, class_ or [], differ), json)
