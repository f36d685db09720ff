"""Ensembles: averaged probabilities of several runs, and how their errors differ."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fgvc_cli.contracts import Split
from fgvc_cli.data.opening import match_classes
from fgvc_cli.data.splits import quoted_names, select_keys
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.evaluation.evaluate import Evaluation, EvaluationRequest, images_note
from fgvc_cli.evaluation.split_selection import SelectedSplit, select_split
from fgvc_cli.evaluation.training_history import notes_of_runs
from fgvc_cli.formatting import run_labels
from fgvc_cli.progress import progress
from fgvc_cli.registry import Registry
from fgvc_cli.runs.folder import choose_new_folder
from fgvc_cli.runs.model_file import read_class_names
from fgvc_cli.runs.results import SplitMetrics
from fgvc_cli.scoring import results
from fgvc_cli.scoring.metrics import LEVEL, mcnemar, split_metrics
from fgvc_cli.scoring.model import Computing, ReadyClassifier, load, run_of
from fgvc_cli.scoring.results import EvaluationSummary, summarize
from fgvc_cli.scoring.scores import Scores, score

logger = logging.getLogger(__name__)


def align(scores: Scores, own_names: Sequence[str], names: Sequence[str], left_out: frozenset[str]) -> Scores:
    """Return scores with their classes in another order, without some images.

    Args:
        scores: of a run whose classes are `own_names`.
        own_names: K names, in the order of the scores.
        names: the same names, in the order that is wanted.
        left_out: keys of images.
    """
    position = {name: index for index, name in enumerate(own_names)}
    columns = np.array([position[name] for name in names])
    place = np.argsort(columns)  # from an own class to its place in the wanted order
    kept = np.array([key not in left_out for key in scores.keys], bool)
    probabilities, labels = scores.probabilities[kept][:, columns], place[scores.labels[kept]]
    keys = [key for key, stays in zip(scores.keys, kept, strict=True) if stays]
    loss = scores.loss if kept.all() else cross_entropy(probabilities, labels)
    return replace(scores, probabilities=probabilities, labels=labels, keys=keys, loss=loss)


def average(members: Sequence[Scores]) -> Scores:
    """Return the scores of the ensemble: the mean of the members' probabilities, each member counting alike.

    Where a member's probabilities are not finite the mean is not either, and the image counts as wrong. An image that
    a member could not read is nobody's.

    Args:
        members: of the same images in the same order, with the same classes in the same order.
    """
    total = np.zeros(members[0].probabilities.shape, np.float64)
    for member in members:
        total += member.probabilities
    total /= len(members)
    return Scores(
        probabilities=total.astype(np.float32),
        labels=members[0].labels,
        keys=members[0].keys,
        loss=cross_entropy(total, members[0].labels),
        failures={key: reason for member in members for key, reason in member.failures.items()},
        seconds=sum(member.seconds for member in members),
    )


def cross_entropy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean cross entropy in nats of probabilities N,K; infinite where a true class has a probability of 0.

    Without an image it is not a number.
    """
    true = np.take_along_axis(probabilities, labels[:, None], axis=1).astype(np.float64)
    with np.errstate(divide="ignore"):
        return float(-np.log(true).mean()) if len(true) else float("nan")


def pair_diversity(first: Scores, second: Scores) -> dict[str, Any]:
    """Return how two classifiers' mistakes go together; all but `q` are shares of the images, in [0, 1].

    - both_right; first_only, second_only: right where the other is wrong.
    - one_right: exactly one is right, the disagreement measure: the larger, the more there is to gain.
    - both_wrong: the double-fault measure: what no choice between the two can mend.
    - both_wrong_same_class: both wrong with the same class, where averaging only makes the mistake surer.
    - different_predictions: another class is predicted, right or wrong.
    - q: Yule's Q statistic, (both_right * both_wrong - first_only * second_only) over the sum of the two products, in
      [-1, 1]: 0 for classifiers that fail independently, 1 where one's mistakes hold all of the other's, below 0 where
      they fail on different images. None where both products are 0.

    Args:
        first, second: of the same N images in the same order, N at least 1. What is not finite counts as wrong, and as
            another class than any.
    """
    first_right, second_right = first.predicted == first.labels, second.predicted == second.labels
    same = (first.predicted == second.predicted) & (first.predicted >= 0)
    both_right, both_wrong = first_right & second_right, ~first_right & ~second_right
    first_only, second_only = first_right & ~second_right, second_right & ~first_right
    return {
        "both_right": _fraction(both_right),
        "first_only": _fraction(first_only),
        "second_only": _fraction(second_only),
        "one_right": _fraction(first_right != second_right),
        "both_wrong": _fraction(both_wrong),
        "both_wrong_same_class": _fraction(both_wrong & same),
        "different_predictions": _fraction(~same),
        "q": yules_q(*(int(which.sum()) for which in (both_right, both_wrong, first_only, second_only))),
    }


def yules_q(both_right: int, both_wrong: int, first_only: int, second_only: int) -> float | None:
    """Return Yule's Q statistic of numbers of images; None where it is not defined."""
    joint_accuracy, apart = both_right * both_wrong, first_only * second_only
    return (joint_accuracy - apart) / (joint_accuracy + apart) if joint_accuracy + apart else None


def joint_accuracy(members: Sequence[Scores]) -> dict[str, Any]:
    """Return what the members get right between them.

    - any_right: share of the images that at least one gets right, the oracle: what a perfect choice among the members
      would reach.
    - all_right: share that every one gets right.
    - images_by_right: how many images exactly 0, 1, ... all members get right.
    """
    right = np.sum([member.predicted == member.labels for member in members], axis=0)
    counts = np.bincount(right, minlength=len(members) + 1)
    return {
        "any_right": float((right > 0).mean()),
        "all_right": float((right == len(members)).mean()),
        "images_by_right": counts.tolist(),
    }


def _fraction(which: np.ndarray) -> float:
    return float(which.mean())


@dataclass(frozen=True)
class Members:
    """What the runs say of the images that all of them could read.

    Attributes:
        scores: one a run, of the same images in the same order, with the first run's classes in its order.
        device: computed them.
        precision: "fp32" or "bf16".
    """

    scores: list[Scores]
    device: torch.device
    precision: str


def class_names_of(models: Sequence[Path]) -> tuple[str, ...]:
    """Return the first model's class names, which must be those of all, in whatever order.

    Raises:
        UsageError: a model knows other classes.
        FgvcError: a file is missing or damaged.
    """
    first, *others = models
    names = read_class_names(first)
    for other in others:
        lacking = [name for name in names if name not in set(read_class_names(other))]
        more = [name for name in read_class_names(other) if name not in set(names)]
        if lacking or more:
            differences = [f"does not know {quoted_names(lacking)}"] * bool(lacking)
            differences += [f"knows {quoted_names(more)}, which {run_of(first)} does not"] * bool(more)
            raise UsageError(
                f"{run_of(other)} {' and '.join(differences)}: only runs of the same classes can be averaged. Leave "
                "one of them out."
            )
    return names


def score_members(models: Sequence[Path], split: Split, computing: Computing) -> Members:
    """Let each run classify the images, one run after the other in memory.

    An image that one run cannot read is not shown to the next, and enters no figure.

    Args:
        models: model files, all of the same classes.
        split: labels index the first model's classes.
        computing: where and how.

    Raises:
        FgvcError: none of the images can be read, a model cannot be loaded, or memory runs out.
    """
    names, available = read_class_names(models[0]), len(split)
    found: list[tuple[Scores, tuple[str, ...]]] = []
    for model in models:
        ready = load(model, computing)
        scores = _score(ready, split, names)
        split = select_keys(split, scores.keys) if scores.failures else split
        if not len(split):
            raise FgvcError(f"None of the {available} images ({split.name}) can be read.")
        found.append((scores, ready.classifier.class_names))
    left_out = frozenset(key for scores, _ in found for key in scores.failures)
    members = [align(scores, own_names, names, left_out) for scores, own_names in found]
    return Members(members, ready.classifier.device, ready.precision)


def _score(ready: ReadyClassifier, split: Split, names: Sequence[str]) -> Scores:
    matched = match_classes(split, names, ready.classifier.class_names, ignore_unknown=False)
    (label,) = run_labels([str(ready.run)])
    with progress(label, len(matched)) as bar, ready.memory_explained():
        return score(ready.classifier, ready.loader(matched), matched, ready.precision, bar.advance)


FOLDER = "ensemble"
"""Where ensembles go that are given no folder, in the current one."""
OF_MEMBERS = ("images", "not_finite", "top1", "top5", "loss", "macro", "weighted", "calibration_error")
"""What a summary says of each run; classes and single images are the ensemble's alone."""


@dataclass(frozen=True, kw_only=True)
class EnsembleSummary(EvaluationSummary):
    """`summary.json` of an ensemble.

    Attributes:
        members: metrics of each run, in their order.
        pairs: see `pair_figures`; with "runs".
        together: see `together`.
        over_best: see `over_best`.
    """

    members: Sequence[SplitMetrics]
    pairs: Sequence[Mapping[str, Any]]
    together: Mapping[str, Any]
    over_best: Mapping[str, Any]

    def as_json(self) -> dict[str, Any]:
        """Return the form that `summary.json` has."""
        metrics = [member.as_json() for member in self.members]
        members = [
            {"run": run, **{name: row[name] for name in OF_MEMBERS}}
            for run, row in zip(self.runs, metrics, strict=True)
        ]
        own = {"members": members, "pairs": list(self.pairs), "together": self.together, "over_best": self.over_best}
        return {**super().as_json(), **own}


def evaluate_ensemble(request: EvaluationRequest, registry: Registry) -> Evaluation:
    """Average the predictions of several runs, and write the results.

    Args:
        request: what is wanted. The first run's dataset is meant where none is named.
        registry: finds datasets.

    Returns:
        Its summary is that of an evaluation, with `runs` in place of `run`, and `members`, `pairs`, `together` and
        `over_best` beside.

    Raises:
        UsageError: the runs have other classes, or the images that are meant do not exist.
        FgvcError: a run or the images are not there, none can be read, memory runs out, or nothing can be written.
    """
    names = class_names_of(request.models)
    subject = select_split(request.subject, request.models[0].parent, names, registry)
    folder = choose_new_folder(request.out, request.force, FOLDER, "the results")
    notes = _notes(request, subject, registry)
    for line in (images_note(subject), *notes):
        logger.info(line)
    members = score_members(request.models, subject.split, request.computing)
    ensemble = average(members.scores)
    evaluated = summarize(
        ensemble,
        names,
        subject.split,
        runs=request.runs,
        dataset=subject.dataset,
        data=subject.data,
        device=members.device,
        precision=members.precision,
        notes=notes,
    )
    summary = EnsembleSummary(
        **{f.name: getattr(evaluated, f.name) for f in fields(evaluated)},
        members=[split_metrics(scores, names) for scores in members.scores],
        pairs=_pairs(request.runs, members.scores),
        together=joint_accuracy(members.scores),
        over_best=compare_with_best(request.runs, members.scores, ensemble),
    )
    return Evaluation(summary, results.write(folder, summary, ensemble, names))


def compare_with_best(runs: Sequence[Path], members: Sequence[Scores], ensemble: Scores) -> dict[str, Any]:
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


def _notes(request: EvaluationRequest, subject: SelectedSplit, registry: Registry) -> list[str]:
    """Return what is to be known of the images: which they are, and which runs have met them in training."""
    runs = [(str(run), model.parent) for run, model in zip(request.runs, request.models, strict=True)]
    stands_in = [f"{runs[0][0]}: {subject.stands_in}" if subject.is_own else subject.stands_in]
    return stands_in * bool(subject.stands_in) + notes_of_runs(runs, subject.split, registry)


def _pairs(runs: Sequence[Path], members: Sequence[Scores]) -> list[dict[str, Any]]:
    both = combinations(zip(runs, members, strict=True), 2)
    return [{"runs": [str(a), str(b)], **pair_diversity(first, second)} for (a, first), (b, second) in both]
