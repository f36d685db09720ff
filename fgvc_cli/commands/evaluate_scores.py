"""`fgvc evaluate`: the figures of one run on a split or a folder, or those of several runs' averaged prediction."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from fgvc_cli.evaluation.evaluating import Evaluation
    from fgvc_cli.evaluation.request import EvaluationRequest


def evaluate_scores(request: EvaluationRequest, ensemble: bool, per_class: bool, json: bool) -> None:
    """Score one run, or with `ensemble` the average of several.

    Args:
        request: what is wanted.
        ensemble: whether the runs' predictions are averaged.
        per_class: whether to list every class, not the worst few.
        json: whether to print the summary as JSON.

    Raises:
        FgvcError: it cannot be done.
        typer.Exit: 3 if some images could not be read.
    """
    from fgvc_cli.display import console
    from fgvc_cli.display.ensemble_tables import show_ensemble
    from fgvc_cli.display.evaluation_tables import show_evaluation
    from fgvc_cli.evaluation.ensemble.ensembling import evaluate_ensemble
    from fgvc_cli.registry import get_registry

    for run in request.runs:
        console.note(f"run        {run}")
    evaluation = evaluate_ensemble(request, get_registry(), console) if ensemble else _evaluate_run(request)
    if json:
        console.print_json(evaluation.summary)
    elif ensemble:
        show_ensemble(evaluation, per_class)
    else:
        show_evaluation(evaluation, per_class)
    if evaluation.summary["failed"]:
        raise typer.Exit(3)


def _evaluate_run(request: EvaluationRequest) -> Evaluation:
    from fgvc_cli.display import console
    from fgvc_cli.evaluation.evaluating import prepare
    from fgvc_cli.registry import get_registry

    prepared = prepare(request, get_registry())
    for line in prepared.notes():
        console.note(line)
    images = prepared.subject.split
    with console.progress(images.name, len(images)) as bar:
        return prepared.run(bar.advance)
