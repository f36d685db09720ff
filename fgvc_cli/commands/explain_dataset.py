"""`fgvc explain` over a data set: figures, files, and pictures of the most telling images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from fgvc_cli.explaining.request import ExplainRequest, SetRequest


def explain_dataset(request: ExplainRequest, wanted: SetRequest, json: bool) -> None:
    """Score explainers over a data set.

    Raises:
        FgvcError: it cannot be done.
        typer.Exit: 3 if some images could not be read; 130 if it was interrupted.
    """
    from fgvc_cli.display import console
    from fgvc_cli.display.explanation_tables import show_study
    from fgvc_cli.display.explanations import gallery_lines
    from fgvc_cli.evaluation.computing import run_of
    from fgvc_cli.explaining.gallery_pictures import draw_gallery
    from fgvc_cli.explaining.over_dataset import study
    from fgvc_cli.registry import get_registry

    study_request = wanted.study(request)
    for model in study_request.models:
        console.note(f"run        {run_of(model)}")
    done = study(study_request, get_registry(), console)
    if json:
        console.print_json(done.summary)
    else:
        show_study(done)
    if done.interrupted:
        raise typer.Exit(130)
    # after the figures, so that they are shown even if drawing is interrupted, or the disk is full
    pictures = draw_gallery(done, study_request, get_registry(), console)
    if not json:
        for line in gallery_lines(pictures, done.gallery):
            console.out().print(line, soft_wrap=True)
    if done.failed:
        raise typer.Exit(3)
