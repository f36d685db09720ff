"""The whole of `fgvc evaluate --ensemble`: from runs and a request to figures and files."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from fgvc_cli.comparing.noise import LEVEL, mcnemar
from fgvc_cli.display.progress import View
from fgvc_cli.evaluation import results
from fgvc_cli.evaluation.ensemble.averaging import averaged
from fgvc_cli.evaluation.ensemble.diversity import pair_figures, together
from fgvc_cli.evaluation.ensemble.members import class_names_of, score_members
from fgvc_cli.evaluation.evaluating import Evaluation, images_note
from fgvc_cli.evaluation.learnt import notes_of_runs
from fgvc_cli.evaluation.metrics import figures
from fgvc_cli.evaluation.request import EvaluationRequest
from fgvc_cli.evaluation.scoring import Scores
from fgvc_cli.evaluation.subject import Subject, choose
from fgvc_cli.evaluation.summary import Occasion
from fgvc_cli.registry import Registry
from fgvc_cli.runs.new_folder import choose_new_folder

FOLDER = "ensemble"
"""Where ensembles go that are given no folder, in the current one."""
OF_MEMBERS = ("images", "not_finite", "top1", "top5", "loss", "macro", "weighted", "calibration_error")
"""What a summary says of each run; classes and single images are the ensemble's alone."""


def evaluate_ensemble(request: EvaluationRequest, registry: Registry, view: View) -> Evaluation:
    """Average the predictions of several runs, and write the results.

    Args:
        request: what is wanted. The first run's data set is meant where none is named.
        registry: finds data sets.
        view: takes notes and progress.

    Returns:
        Its summary is that of an evaluation, with `runs` in place of `run`, and `members`, `pairs`, `together` and
        `over_best` beside.

    Raises:
        UsageError: the runs have other classes, or the images that are meant do not exist.
        FgvcError: a run or the images are not there, none can be read, memory runs out, or nothing can be written.
    """
    names = class_names_of(request.models)
    subject = choose(request.subject, request.models[0].parent, names, registry)
    folder = choose_new_folder(request.out, request.force, FOLDER, "the results")
    notes = _notes(request, subject, registry)
    for line in (images_note(subject), *notes):
        view.note(line)
    members = score_members(request.models, subject.split, request.computing, view)
    ensemble = averaged(members.scores)
    occasion = Occasion(
        request.runs, subject.dataset, subject.data, subject.split, members.device, members.precision, tuple(notes)
    )
    summary = {
        **occasion.summary(ensemble, names),
        "members": [_member(run, scores, names) for run, scores in zip(request.runs, members.scores, strict=True)],
        "pairs": _pairs(request.runs, members.scores),
        "together": together(members.scores),
        "over_best": over_best(request.runs, members.scores, ensemble),
    }
    return Evaluation(summary, results.write(folder, summary, ensemble, names))


def over_best(runs: Sequence[Path], members: Sequence[Scores], ensemble: Scores) -> dict[str, Any]:
    """Return how the ensemble compares with the member that gets most of these images right.

    - run: that member's, of equals the one with the lowest loss.
    - difference: the ensemble's top-1 less the member's.
    - ensemble_only, member_only: images that only the one gets right.
    - p_value: of McNemar's exact test; significant: whether that is below 0.05. The member was chosen on these very
      images, which is to its advantage.
    """
    top1 = [float((scores.predicted == scores.labels).mean()) for scores in members]
    best = min(range(len(members)), key=lambda i: (-top1[i], members[i].loss))
    right, ours = members[best].predicted == members[best].labels, ensemble.predicted == ensemble.labels
    ensemble_only, member_only = int((ours & ~right).sum()), int((right & ~ours).sum())
    p_value = mcnemar(ours, right)
    return {
        "run": str(runs[best]),
        "difference": (ensemble_only - member_only) / len(ensemble),
        "ensemble_only": ensemble_only,
        "member_only": member_only,
        "p_value": p_value,
        "significant": p_value < LEVEL,
    }


def _notes(request: EvaluationRequest, subject: Subject, registry: Registry) -> list[str]:
    """Return what is to be known of the images: which they are, and which runs have met them in training."""
    runs = [(str(run), model.parent) for run, model in zip(request.runs, request.models, strict=True)]
    stands_in = [f"{runs[0][0]}: {subject.stands_in}" if subject.is_own else subject.stands_in]
    return stands_in * bool(subject.stands_in) + notes_of_runs(runs, subject.split, registry)


def _member(run: Path, scores: Scores, names: Sequence[str]) -> dict[str, Any]:
    found = figures(scores, names)
    return {"run": str(run), **{figure: found[figure] for figure in OF_MEMBERS}}


def _pairs(runs: Sequence[Path], members: Sequence[Scores]) -> list[dict[str, Any]]:
    both = combinations(zip(runs, members, strict=True), 2)
    return [{"runs": [str(a), str(b)], **pair_figures(first, second)} for (a, first), (b, second) in both]
