"""Pick and draw the most telling images of a split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fgvc_cli.data.images import ImageError
from fgvc_cli.explaining.dataset import Study
from fgvc_cli.explaining.explainers import make_explainers
from fgvc_cli.explaining.explanation import Subject
from fgvc_cli.explaining.images import PICTURE, ExplainingImages, told_apart
from fgvc_cli.explaining.panels import write_panel
from fgvc_cli.explaining.request import StudyRequest
from fgvc_cli.explaining.statistics import Telling
from fgvc_cli.progress import progress
from fgvc_cli.registry import Registry
from fgvc_cli.scoring.model import load, run_of

GALLERY = "gallery"


def draw_gallery(study: Study, request: StudyRequest, registry: Registry) -> list[Path]:
    """Draw a panel of each telling image that is a file, into the study's folder; earlier ones there are replaced.

    Args:
        study: its gallery is drawn.
        request: what the study was asked: the panels are made alike.
        registry: finds explainers.

    Returns:
        The pictures, called after their reason and the image.
    """
    folder = study.folder / GALLERY
    for old in folder.glob(f"*{PICTURE}"):
        old.unlink()
    names = told_apart([_name(telling, request) for telling in study.gallery])
    places = {(t.run, str(t.file)): folder / f"{name}{PICTURE}" for t, name in zip(study.gallery, names, strict=True)}
    drawn: list[Path] = []
    with progress("pictures", len(study.gallery)) as bar:
        for model in request.models:
            for name in request.explainers:
                chosen = [t for t in study.gallery if t.file and (t.run, t.explainer) == (run_of(model), name)]
                if not chosen:
                    continue
                explaining = _explaining(chosen, model, name, request, registry)
                for batch in explaining:
                    for image in batch:
                        place = places[run_of(model), image.subject.name]
                        try:
                            write_panel(place, image, request.cover)
                        except ImageError:  # it was read a moment ago, and is gone now
                            continue
                        drawn.append(place)
                        bar.advance()
    return drawn


def _explaining(
    chosen: Sequence[Telling], model: Path, explainer: str, request: StudyRequest, registry: Registry
) -> ExplainingImages:
    explainers = make_explainers([explainer], _settings(explainer, request, registry), registry)
    subjects = [Subject(str(t.file), t.file, t.true) for t in chosen if t.file is not None]
    ready = load(model, request.computing)
    return ExplainingImages([ready], explainers, subjects, request.target, request.cover, request.steps)


def _settings(explainer: str, request: StudyRequest, registry: Registry) -> dict[str, object]:
    """Return those of the settings that this explainer has; the others are of those it is compared with."""
    from dataclasses import fields

    known = {field.name for field in fields(registry.find("explainer", explainer).options_type())}
    return {name: value for name, value in request.settings.items() if name in known}


def _name(telling: Telling, request: StudyRequest) -> str:
    key = Path(telling.key).with_suffix("").as_posix().replace("/", "-")
    run = f"{telling.run.absolute().name}-" if len(request.models) > 1 else ""
    return f"{telling.reason.replace(' ', '-')}-{run}{key}"
