"""`fgvc explain IMAGES`: a picture and a table for each image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from fgvc_cli.explaining.request import ExplainRequest


def explain_images(images: Sequence[Path], request: ExplainRequest, occlude: bool, json: bool) -> None:
    """Explain images; what is done when it is interrupted, or when the disk is full, is shown.

    Raises:
        FgvcError: no image could be explained, or a picture not be written.
        typer.Exit: 3 if some images were left out; 130 if it was interrupted.
    """
    from fgvc_cli.data.images import ImageError
    from fgvc_cli.display import console
    from fgvc_cli.display.explanations import ExplanationWriter
    from fgvc_cli.errors import FgvcError
    from fgvc_cli.explaining.panels import write_panel
    from fgvc_cli.explaining.prepare_images import prepare_images
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
