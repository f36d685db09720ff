"""`fgvc evaluate` of one run: its figures on a split or a folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from fgvc_cli.evaluation.request import EvaluationRequest


def evaluate_run(request: EvaluationRequest, per_class: bool, json: bool) -> None:
    """Score one run.

    Args:
        request: what is wanted.
        per_class: whether to list every class, not the worst few.
        json: whether to print the summary as JSON.

    Raises:
        FgvcError: it cannot be done.
        typer.Exit: 3 if some images could not be read.
    """
    from fgvc_cli.display import console
    from fgvc_cli.display.evaluation_tables import show_evaluation
    from fgvc_cli.evaluation.evaluating import prepare
    from fgvc_cli.registry import get_registry

    console.note(f"run        {request.runs[0]}")
    prepared = prepare(request, get_registry())
    for line in prepared.notes():
        console.note(line)
    images = prepared.subject.split
    with console.progress(images.name, len(images)) as bar:
        evaluation = prepared.run(bar.advance)
    if json:
        console.print_json(evaluation.summary)
    else:
        show_evaluation(evaluation, per_class)
    if evaluation.summary["failed"]:
        raise typer.Exit(3)
