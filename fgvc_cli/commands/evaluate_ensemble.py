"""`fgvc evaluate --ensemble`: the averaged prediction of several runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from fgvc_cli.evaluation.request import EvaluationRequest


def evaluate_ensemble(request: EvaluationRequest, per_class: bool, json: bool) -> None:
    """Score several runs and the average of their predictions.

    Args:
        request: what is wanted.
        per_class: whether to list every class, not the worst few.
        json: whether to print the summary as JSON.

    Raises:
        FgvcError: it cannot be done.
        typer.Exit: 3 if some images could not be read.
    """
    from fgvc_cli.display import console
    from fgvc_cli.display.ensemble_tables import show_ensemble
    from fgvc_cli.evaluation.ensemble import ensembling
    from fgvc_cli.registry import get_registry

    for run in request.runs:
        console.note(f"run        {run}")
    evaluation = ensembling.evaluate_ensemble(request, get_registry(), console)
    if json:
        console.print_json(evaluation.summary)
    else:
        show_ensemble(evaluation, per_class)
    if evaluation.summary["failed"]:
        raise typer.Exit(3)
