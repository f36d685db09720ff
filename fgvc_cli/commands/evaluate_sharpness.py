"""`fgvc evaluate --sharpness`: how far the loss rises around runs' weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from fgvc_cli.evaluation.sharpness.request import SharpnessRequest


def evaluate_sharpness(request: SharpnessRequest, json: bool) -> None:
    """Measure the loss around each run's weights.

    Args:
        request: what is wanted.
        json: whether to print the summary as JSON.

    Raises:
        FgvcError: it cannot be done.
        typer.Exit: 3 if some images could not be read; 130 if it was interrupted.
    """
    from fgvc_cli.display import console
    from fgvc_cli.display.sharpness_tables import show_sharpness
    from fgvc_cli.evaluation.sharpness.over_runs import measure_sharpness
    from fgvc_cli.registry import get_registry

    for run in request.evaluation.runs:
        console.note(f"run        {run}")
    report = measure_sharpness(request, get_registry(), console)
    if json:
        console.print_json(report.summary)
    else:
        show_sharpness(report)
    if report.summary["interrupted"]:
        raise typer.Exit(130)
    if report.summary["failed"]:
        raise typer.Exit(3)
