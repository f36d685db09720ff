"""Ensembles: averaged probabilities of several runs, and how their errors differ."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from fgvc_cli.data.splits import match_classes, quoted_names, select_keys
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.evaluation.evaluate import Evaluation
from fgvc_cli.evaluation.split_selection import SelectedSplit, SplitRequest, select_split
from fgvc_cli.evaluation.training_history import notes_of_runs
from fgvc_cli.formatting import run_labels
from fgvc_cli.progress import progress
from fgvc_cli.registry import Registry
from fgvc_cli.runs.folder import choose_new_folder
from fgvc_cli.runs.model_file import CALIBRATION, read_class_names, read_metadata
from fgvc_cli.runs.results import SplitMetrics
from fgvc_cli.scoring import results
from fgvc_cli.scoring.model import InferenceSettings, ReadyClassifier, load, run_of
from fgvc_cli.scoring.results import EvaluationSummary, summarize
from fgvc_cli.scoring.scores import LEVEL, Scores, mcnemar, score, split_metrics
from fgvc_cli.scoring.taxonomy import TaxonomySettings, find_tree, taxonomy_metrics

logger = logging.getLogger(__name__)

FOLDER = "ensemble"
"""The folder for results without `out`, in the current folder."""
MEMBER_METRICS = ("images", "not_finite", "top1", "top5", "loss", "macro", "weighted", "calibration_error")
"""The metrics of each member in the summary."""


@dataclass(frozen=True)
class PairDiversity:
    """How the errors of two classifiers differ; all but `q` are fractions of the images, in [0, 1].

    Attributes:
        both_right: both are right.
        first_only, second_only: only one is right.
        one_right: exactly one is right (the disagreement measure); the larger, the more an ensemble can gain.
        both_wrong: both are wrong (the double-fault measure); no choice between the two can correct these.
        both_wrong_same_class: both predict the same wrong class; averaging makes the error more confident.
        different_predictions: they predict different classes.
        q: Yule's Q statistic in [-1, 1], see `yules_q`; None if undefined.

    Reference: Kuncheva and Whitaker (2003), Measures of Diversity in Classifier Ensembles and Their Relationship with
    the Ensemble Accuracy, Machine Learning 51, 181-207.
    """

    both_right: float
    first_only: float
    second_only: float
    one_right: float
    both_wrong: float
    both_wrong_same_class: float
    different_predictions: float
    q: float | None

    @classmethod
    def of(cls, first: Scores, second: Scores) -> PairDiversity:
        """Compute it for scores of the same images in the same order; scores that are not finite are wrong."""
        first_right, second_right = first.predicted == first.labels, second.predicted == second.labels
        same = (first.predicted == second.predicted) & (first.predicted >= 0)
        both_right, both_wrong = first_right & second_right, ~first_right & ~second_right
        first_only, second_only = first_right & ~second_right, second_right & ~first_right
        return cls(
            both_right=float(both_right.mean()),
            first_only=float(first_only.mean()),
            second_only=float(second_only.mean()),
            one_right=float((first_right != second_right).mean()),
            both_wrong=float(both_wrong.mean()),
            both_wrong_same_class=float((both_wrong & same).mean()),
            different_predictions=float((~same).mean()),
            q=yules_q(*(int(images.sum()) for images in (both_right, both_wrong, first_only, second_only))),
        )


def yules_q(both_right: int, both_wrong: int, first_only: int, second_only: int) -> float | None:
    """Return Yule's Q statistic of numbers of images.

    (both_right * both_wrong - first_only * second_only) over the sum of the two products: 0 for independent errors, 1
    if the errors of one classifier include those of the other, negative if they fail on different images. None if both
    products are 0.
    """
    agree, differ = both_right * both_wrong, first_only * second_only
    return (agree - differ) / (agree + differ) if agree + differ else None


@dataclass(frozen=True)
class JointAccuracy:
    """What the members of an ensemble classify correctly together.

    Attributes:
        any_right: fraction of the images that at least one member gets right (the oracle accuracy).
        all_right: fraction that all members get right.
        images_by_right: number of images that exactly 0, 1, ... members get right.
    """

    any_right: float
    all_right: float
    images_by_right: Sequence[int]

    @classmethod
    def of(cls, members: Sequence[Scores]) -> JointAccuracy:
        """Compute it for scores of the same images in the same order."""
        right = np.sum([member.predicted == member.labels for member in members], axis=0)
        counts = np.bincount(right, minlength=len(members) + 1)
        return cls(float((right > 0).mean()), float((right == len(members)).mean()), counts.tolist())


@dataclass(frozen=True)
class BestMemberComparison:
    """The ensemble compared with its best member, which is selected on the same images and so has an advantage.

    Attributes:
        run: the member with the highest top-1 accuracy; ties are broken by the lowest loss.
        difference: top-1 of the ensemble minus that of the member.
        ensemble_only, member_only: number of images that only this one gets right.
        p_value: of McNemar's exact test.
        significant: whether the p-value is below 0.05.
    """

    run: str
    difference: float
    ensemble_only: int
    member_only: int
    p_value: float
    significant: bool

    @classmethod
    def of(cls, runs: Sequence[Path], members: Sequence[Scores], ensemble: Scores) -> BestMemberComparison:
        """Compute it for scores of the same images in the same order."""
        top1 = [float((scores.predicted == scores.labels).mean()) for scores in members]
        best = min(range(len(members)), key=lambda i: (-top1[i], members[i].loss))
        theirs, ours = members[best].predicted == members[best].labels, ensemble.predicted == ensemble.labels
        ensemble_only, member_only = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
        difference, p_value = (ensemble_only - member_only) / len(ensemble), mcnemar(ours, theirs)
        return cls(str(runs[best]), difference, ensemble_only, member_only, p_value, p_value < LEVEL)


@dataclass(frozen=True, kw_only=True)
class EnsembleSummary(EvaluationSummary):
    """`summary.json` of an ensemble: metrics of the averaged predictions, of members, and of pairs by their names."""

    members: Sequence[SplitMetrics]
    pairs: Sequence[tuple[tuple[str, str], PairDiversity]]
    together: JointAccuracy
    over_best: BestMemberComparison

    def as_json(self) -> dict[str, Any]:
        """Return the form that `summary.json` has."""
        metrics = [member.as_json() for member in self.members]
        return {
            **super().as_json(),
            "members": [
                {"run": run, **{name: row[name] for name in MEMBER_METRICS}}
                for run, row in zip(self.runs, metrics, strict=True)
            ],
            "pairs": [{"runs": list(runs), **asdict(pair)} for runs, pair in self.pairs],
            "together": asdict(self.together),
            "over_best": asdict(self.over_best),
        }


def evaluate_ensemble(
    models: Sequence[Path],
    registry: Registry,
    split: SplitRequest | None = None,
    inference: InferenceSettings | None = None,
    out: Path | None = None,
    force: bool = False,
    taxonomy: TaxonomySettings | None = None,
) -> Evaluation:
    """Average the predictions of several runs and write the results; its summary is an `EnsembleSummary`.

    The runs predict one after the other, so that only one is in memory.

    Args:
        models: model files of the runs, with the same classes in any order.
        registry: resolves datasets.
        split: the images; default: the test split of the first run's dataset.
        inference: device, precision and batch size.
        out: folder for the results; default: a new one in `ensemble`.
        force: whether `out` may exist.
        taxonomy: groups of the classes; default: those in the first run's model file, if any.

    Raises:
        UsageError: the runs have different classes, or the split does not exist.
        FgvcError: a model or the images are missing, no image can be read, memory runs out, or the results cannot be
            written.
    """
    runs = [run_of(model) for model in models]
    names = common_class_names(models)
    selected = select_split(split or SplitRequest(), models[0].parent, names, registry)
    folder = choose_new_folder(out, force, FOLDER, "the results")
    labeled = [(str(run), model.parent) for run, model in zip(runs, models, strict=True)]
    notes = notes_of_runs(labeled, selected.split, registry)
    if selected.fallback_note:
        notes.insert(0, f"{runs[0]}: " * selected.is_own + selected.fallback_note)
    if any(CALIBRATION in read_metadata(model) for model in models):
        notes.append("The probabilities are averaged before calibration: calibrations of runs are not used.")
    for line in (selected.description, *notes):
        logger.info(line)
    groups = taxonomy or TaxonomySettings()
    tree = find_tree(models[0], names, groups, selected.opened)
    members, ready = _score_members(models, selected, names, inference or InferenceSettings())
    ensemble = average(members)
    evaluated = summarize(
        ensemble,
        names,
        selected.split,
        runs=runs,
        dataset=selected.dataset,
        data=selected.data,
        device=ready.classifier.device,
        precision=ready.precision,
        notes=[*notes, *([ready.views.note] if ready.views.note else [])],
        tta=ready.views.names,
        taxonomy=None if tree is None else taxonomy_metrics(ensemble, tree, groups.threshold),
    )
    summary = EnsembleSummary(
        **{field.name: getattr(evaluated, field.name) for field in fields(evaluated)},
        members=[split_metrics(scores, names) for scores in members],
        pairs=[
            ((str(a), str(b)), PairDiversity.of(first, second))
            for (a, first), (b, second) in combinations(zip(runs, members, strict=True), 2)
        ],
        together=JointAccuracy.of(members),
        over_best=BestMemberComparison.of(runs, members, ensemble),
    )
    return Evaluation(summary, results.write(folder, summary, ensemble, names))


def common_class_names(models: Sequence[Path]) -> tuple[str, ...]:
    """Return the class names of the first model, which the others must have in any order.

    Raises:
        UsageError: a model has other classes.
        FgvcError: a file is missing or damaged.
    """
    first, *others = models
    names = read_class_names(first)
    for other in others:
        theirs = read_class_names(other)
        known, known_first = set(theirs), set(names)
        missing, extra = [n for n in names if n not in known], [n for n in theirs if n not in known_first]
        if missing or extra:
            differences = [f"does not have {quoted_names(missing)}"] * bool(missing)
            differences += [f"has {quoted_names(extra)}, which {run_of(first)} does not"] * bool(extra)
            raise UsageError(
                f"{run_of(other)} {' and '.join(differences)}; only runs with the same classes can be averaged"
            )
    return names


def _score_members(
    models: Sequence[Path], selected: SelectedSplit, names: Sequence[str], inference: InferenceSettings
) -> tuple[list[Scores], ReadyClassifier]:
    """Score each run on the images that all can read, with classes in the order of `names`; return the last run too."""
    split, available = selected.split, len(selected.split)
    found: list[tuple[Scores, tuple[str, ...]]] = []
    for model in models:
        ready = load(model, inference)
        matched = match_classes(split, names, ready.classifier.class_names, ignore_unknown=False)
        (label,) = run_labels([str(ready.run)])
        with progress(label, len(matched)) as bar, ready.memory_explained():
            loader = ready.loader(matched)
            scores = score(ready.classifier, loader, matched, ready.precision, bar.advance, ready.scores)
        split = select_keys(split, scores.keys) if scores.failures else split  # the next run skips unreadable images
        if not len(split):
            raise FgvcError(f"none of the {available} images ({split.name}) can be read")
        found.append((scores, ready.classifier.class_names))
    failed = frozenset(key for scores, _ in found for key in scores.failures)
    return [align(scores, own_names, names, failed) for scores, own_names in found], ready


def align(scores: Scores, own_names: Sequence[str], names: Sequence[str], excluded: frozenset[str]) -> Scores:
    """Reorder the classes of scores, and exclude images.

    Args:
        scores: of a run with the classes `own_names`.
        own_names: K names, in the order of the scores.
        names: the same names, in the requested order.
        excluded: keys of images.
    """
    position = {name: index for index, name in enumerate(own_names)}
    columns = np.array([position[name] for name in names])
    kept = np.array([key not in excluded for key in scores.keys], bool)
    probabilities, labels = scores.probabilities[kept][:, columns], np.argsort(columns)[scores.labels[kept]]
    keys = [key for key in scores.keys if key not in excluded]
    loss = scores.loss if kept.all() else cross_entropy(probabilities, labels)
    return replace(scores, probabilities=probabilities, labels=labels, keys=keys, loss=loss)


def average(members: Sequence[Scores]) -> Scores:
    """Return the mean probabilities of members with the same images and classes in the same order, equally weighted.

    If the probabilities of a member are not finite the mean is not either, and the image counts as wrong.
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
    """Return the mean cross entropy in nats of probabilities N,K: infinite if a true class has 0, NaN if N is 0."""
    true = np.take_along_axis(probabilities, labels[:, None], axis=1).astype(np.float64)
    with np.errstate(divide="ignore"):
        return float(-np.log(true).mean()) if len(true) else float("nan")
