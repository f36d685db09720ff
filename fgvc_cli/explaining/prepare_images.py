"""From a command line to images that are ready to be explained: files, runs, explainers, and where pictures go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fgvc_cli.evaluation.computing import load
from fgvc_cli.evaluation.predicting import find_inputs
from fgvc_cli.explaining.explained import Subject
from fgvc_cli.explaining.explainers import make_explainers
from fgvc_cli.explaining.image_files import PICTURE, picture_files, true_class, without_pictures
from fgvc_cli.explaining.over_images import ExplainingImages
from fgvc_cli.explaining.request import ExplainRequest
from fgvc_cli.registry import Registry


@dataclass(frozen=True)
class PreparedImages:
    """Images that are ready to be explained.

    Attributes:
        explaining: does it; knows already which inputs gave no image.
        pictures: where each image's picture goes, by the image's name.
        description: what was asked for, for the JSON document.
        notes: what a person should know before it starts.
    """

    explaining: ExplainingImages
    pictures: dict[str, Path]
    description: dict[str, Any]
    notes: list[str]


def prepare_images(paths: Sequence[Path], request: ExplainRequest, occlude: bool, registry: Registry) -> PreparedImages:
    """Find the images, load the runs, and check that everything can be done before anything is.

    Args:
        paths: files and folders.
        request: what is wanted.
        occlude: whether the most marked part is covered.
        registry: finds explainers.

    Raises:
        UsageError: there is no such explainer, option or class, an explainer cannot explain a run, or a picture is
            there already.
        FgvcError: there is no image, no run, or no way to write pictures.
    """
    explainers = make_explainers(request.explainers, request.settings, registry)
    inputs = find_inputs(paths)
    images = without_pictures(inputs.images, set(paths))
    pictures = picture_files(images, request.out, request.force)
    models = request.models()
    runs = [load(model, request.computing) for model in models]
    class_names = runs[0].classifier.class_names
    subjects = [Subject(str(path), path, true_class(path, class_names)) for path in images]
    cover, steps = (request.cover, request.steps) if occlude else (None, 0)
    explaining = ExplainingImages(runs, explainers, subjects, request.target, cover, steps, dict(inputs.failures))
    occlusion = None if cover is None else {**vars(cover), "steps": steps}
    left_out = len(inputs.images) - len(images)
    return PreparedImages(
        explaining,
        {str(image): picture for image, picture in zip(images, pictures, strict=True)},
        {
            "runs": [str(ready.run) for ready in runs],
            "explainers": [{"name": e.name, "options": dict(e.options)} for e in explainers],
            "target": request.target,
            "occlusion": occlusion,
        },
        [
            *(f"run        {ready.run}" for ready in runs),
            *dict.fromkeys(line for ready in runs for e in explainers for line in e.notes(ready.classifier)),
            *([f"{left_out} pictures called *{PICTURE} are not explained again"] if left_out else []),
        ],
    )
