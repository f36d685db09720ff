"""Explain a whole split and score the saliency maps."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fgvc_cli.config.recipes import Layer
from fgvc_cli.contracts import Split
from fgvc_cli.data.loading import EvaluationLoader
from fgvc_cli.data.opening import match_classes
from fgvc_cli.data.splits import by_keys, spread, subset
from fgvc_cli.errors import FgvcError, UsageError, did_you_mean
from fgvc_cli.evaluation.images import Subject, SubjectRequest, choose
from fgvc_cli.explaining import statistics
from fgvc_cli.explaining.explainers import NamedExplainer, make_explainers, with_baseline
from fgvc_cli.explaining.faithfulness import KnownParts
from fgvc_cli.explaining.gallery import Telling, most_telling
from fgvc_cli.explaining.masking import Cover
from fgvc_cli.explaining.measuring import Gathering, Measured, Measuring, measure
from fgvc_cli.explaining.statistics import Scored, summarise
from fgvc_cli.progress import Progress, progress
from fgvc_cli.registry import Registry
from fgvc_cli.scoring.model import Computing, ReadyClassifier, load
from fgvc_cli.scoring.results import choose_folder
from fgvc_cli.scoring.scores import Scores, score

logger = logging.getLogger(__name__)


def class_index(name: str, class_names: Sequence[str], option: str) -> int:
    """Return the index of a class.

    Args:
        name: what a person typed.
        class_names: the classifier's.
        option: how the message names what was typed, such as "--class".

    Raises:
        UsageError: there is no such class.
    """
    if name not in class_names:
        raise UsageError(f"{option} {name}: the run knows no such class.{did_you_mean(name, class_names)}")
    return list(class_names).index(name)


def of_classes(split: Split, classes: Sequence[int], class_names: Sequence[str]) -> Split:
    """Return the images of these classes.

    Raises:
        FgvcError: one of them has no image.
    """
    for label in classes:
        if label not in split.labels:
            raise FgvcError(f"--class {class_names[label]}: the {split.name} split has no image of that class.")
    wanted = [i for i, label in enumerate(split.labels) if label in classes]
    return subset(split, wanted, split.name, split.origin)


def in_turn(labels: Sequence[int]) -> list[int]:
    """Return the positions of all images so that the classes take turns: what is done when one interrupts is spread."""
    turn: Counter[int] = Counter()
    turns = []
    for position, label in enumerate(labels):
        turns.append((turn[label], label, position))
        turn[label] += 1
    return [position for _, _, position in sorted(turns)]


def differing(first: Scores, second: Scores) -> list[str]:
    """Return the keys of the images that the first scores get right and the second wrong, the first's surest first.

    Images that either could not read are left out. Equal confidence: in the order of the split.
    """
    wrong = {key for key, ok in zip(second.keys, second.predicted == second.labels, strict=True) if not ok}
    right = first.predicted == first.labels
    found = [i for i, key in enumerate(first.keys) if right[i] and key in wrong]
    return [first.keys[i] for i in sorted(found, key=lambda i: -float(first.confidence[i]))]


@dataclass(frozen=True)
class StudyRequest:
    """What a person wants to know over a data set.

    Attributes:
        models: model files, of the runs to compare (see `find_model`). The first one's data set is meant where none
            is named; the others must know its classes.
        subject: which images.
        explainers: names; the random map is added where it is missing.
        settings: options of explainers, by name; each goes to the explainers that have it.
        target: the class that maps explain: "predicted", "true", or the name of a class.
        cover: how much is covered, and with what.
        steps: how often more is covered, the map drawn anew each time.
        curve_steps: points of the deletion and insertion curves after the first.
        tolerance: how far outside of a box the pointing game still counts a hit, in sides of the crop.
        limit: so many images at most.
        classes: only images of these classes; empty: of all.
        differ: only images that the first of two runs gets right and the second wrong, the surest first.
        computing: where and how.
        out: folder for the results; None: `explanation/SPLIT` in the first run.
        force: whether `out` may exist.
        telling: images of each kind in the gallery.
    """

    models: Sequence[Path]
    subject: SubjectRequest = field(default_factory=SubjectRequest)
    explainers: Sequence[str] = ("gradcam",)
    settings: Layer = field(default_factory=dict)
    target: str = "predicted"
    cover: Cover = field(default_factory=Cover)
    steps: int = 1
    curve_steps: int = 20
    tolerance: float = 0.0
    limit: int | None = None
    classes: Sequence[str] = ()
    differ: bool = False
    computing: Computing = field(default_factory=lambda: Computing(precision="fp32"))
    out: Path | None = None
    force: bool = False
    telling: int = 4

    def __post_init__(self) -> None:
        if not self.models:
            raise UsageError("No run is named: name one with --run.")
        if self.differ and len(self.models) != 2:
            raise UsageError(f"--differ compares two runs, not {len(self.models)}: write --run A --run B --differ.")
        for name, value, least in (
            ("--steps", self.steps, 1),
            ("--limit", self.limit, 1),
            ("curve_steps", self.curve_steps, 2),
        ):
            if value is not None and value < least:
                raise UsageError(f"{name} {value}: it must be at least {least}.")


@dataclass(frozen=True)
class Chosen:
    """The images of a study.

    Attributes:
        splits: the same images in the same order for each run, the classes in turn (with `--differ` the surest
            first); labels index that run's classes.
        available: how many images there were before `--limit`, `--class` and `--differ`.
        how: in words, how they were chosen from those.
        notes: what a person should know before the figures come.
    """

    splits: list[Split]
    available: int
    how: str
    notes: list[str]


def choose_images(subject: Subject, runs: Sequence[ReadyClassifier], request: StudyRequest) -> Chosen:
    """Choose images for all runs; with `--differ` that takes scoring them with both.

    Raises:
        UsageError: a class does not exist, or is unknown to one of the runs.
        FgvcError: no image is left.
    """
    names = runs[0].classifier.class_names
    split, how = subject.split, []
    if request.classes:
        wanted = [class_index(name, names, "--class") for name in request.classes]
        split = of_classes(split, wanted, names)
        how.append(f"of {', '.join(dict.fromkeys(request.classes))}")
    splits = _for_all(split, runs, request.subject.ignore_unknown)
    if request.differ:
        splits, words = _differing(splits, runs)
        how.append(words)
    if request.limit is not None and request.limit < len(splits[0]):
        splits, words = _limited(splits, request.limit, in_order=request.differ)
        how.append(words)
    if not request.differ:
        splits = [subset(split, in_turn(splits[0].labels), split.name, split.origin) for split in splits]
    if not len(splits[0]):
        raise FgvcError(f"There is no image to explain in {subject.dataset} ({subject.split.name}).")
    described = ", ".join(how) or "all"
    source = subject.data or subject.dataset
    count = f"{len(splits[0])} of {len(subject.split)}" if how else str(len(splits[0]))
    note = f"images     {count}, {subject.split.name} of {source}{': ' + described if how else ''}"
    return Chosen(splits, len(subject.split), described, [note, *subject.notes])


def _for_all(split: Split, runs: Sequence[ReadyClassifier], ignore_unknown: bool) -> list[Split]:
    """Return the images whose classes all runs know, labelled for each."""
    names = runs[0].classifier.class_names
    splits = [split]
    for ready in runs[1:]:
        try:
            splits.append(match_classes(split, names, ready.classifier.class_names, ignore_unknown))
        except (UsageError, FgvcError) as error:
            raise type(error)(f"--run {ready.run}: {error}") from None
    known = set.intersection(*(set(each.keys) for each in splits))
    return splits if len(known) == len(split) else [by_keys(s, [k for k in split.keys if k in known]) for s in splits]


def _differing(splits: Sequence[Split], runs: Sequence[ReadyClassifier]) -> tuple[list[Split], str]:
    scores = [_score(split, ready) for split, ready in zip(splits, runs, strict=True)]
    keys = differing(*scores)
    if not keys:
        right = [
            f"{ready.run} gets {_right(each)} of {len(each)} right" for ready, each in zip(runs, scores, strict=True)
        ]
        raise FgvcError(f"--differ: no image is right in the first run and wrong in the second ({'; '.join(right)}).")
    words = f"right in {runs[0].run.name} and wrong in {runs[1].run.name}, the first's surest first"
    return [by_keys(split, keys) for split in splits], words


def _score(split: Split, ready: ReadyClassifier) -> Scores:
    with progress(ready.run.name, len(split)) as bar, ready.memory_explained():
        return score(ready.classifier, ready.loader(split), split, ready.precision, bar.advance)


def _right(scores: Scores) -> int:
    return int((scores.predicted == scores.labels).sum())


def _limited(splits: Sequence[Split], limit: int, in_order: bool) -> tuple[list[Split], str]:
    first = splits[0]
    indices = list(range(limit)) if in_order else spread(first.labels, limit)
    limited = [subset(split, indices, split.name, split.origin) for split in splits]
    if in_order:
        return limited, f"the first {limit}"
    counts = np.bincount(limited[0].labels)
    counts = counts[counts > 0]
    each = f"{counts.min()}" if counts.min() == counts.max() else f"{counts.min()} to {counts.max()}"
    return limited, f"{each} of each of {len(counts)} classes, evenly apart"


__all__ = ["Study", "StudyRequest", "Telling", "study"]


@dataclass(frozen=True)
class Study:
    """What came out.

    Attributes:
        summary: what `summary.json` holds; `summary["explainers"]` has one entry for each run and explainer, which
            `fgvc_cli.cli.explanation_tables.show_study` prints.
        files: what was written, the summary last.
        gallery: the most telling images, to draw panels of.
        interrupted: whether Ctrl-C ended it early; what was done until then counts.
    """

    summary: dict[str, Any]
    files: list[Path]
    gallery: list[Telling]
    interrupted: bool

    @property
    def folder(self) -> Path:
        """Where the files are."""
        return self.files[-1].parent

    @property
    def failed(self) -> int:
        """How many images could not be read."""
        return len(self.summary["failures"])


def study(request: StudyRequest, registry: Registry) -> Study:
    """Score explainers over a data set and write the results.

    Args:
        request: what is wanted.
        registry: finds explainers and data sets.

    Raises:
        UsageError: the request cannot be met: no such class, split, explainer, or one that cannot explain a run.
        FgvcError: no image is left, none can be read, an explainer breaks its contract, memory runs out, or the
            results cannot be written.
        KeyboardInterrupt: before the first batch was done.
    """
    started = time.perf_counter()
    explainers, baseline = with_baseline(make_explainers(request.explainers, request.settings, registry), registry)
    runs = [load(model, request.computing) for model in request.models]
    for ready in runs:
        for explainer in explainers:
            explainer.check(ready.classifier)
    for line in dict.fromkeys(line for r in runs for e in explainers for line in e.notes(r.classifier)):
        logger.info(line)
    measurings = [_measuring(request, ready) for ready in runs]
    run_folder = request.models[0].parent
    subject = choose(request.subject, run_folder, runs[0].classifier.class_names, registry)
    folder = choose_folder(run_folder, subject, request.out, request.force, "explanation")
    chosen = choose_images(subject, runs, request)
    for line in chosen.notes:
        logger.info(line)
    passes = len(chosen.splits[0]) * sum(measuring.passes(len(explainers)) for measuring in measurings)
    pairs = [
        _Pass(ready, split, explainers, measuring, _parts(subject, ready, split, request.tolerance))
        for ready, split, measuring in zip(runs, chosen.splits, measurings, strict=True)
    ]
    interrupted = _measure_all(pairs, passes)
    scored = [scored for each in pairs for scored in each.scored(baseline)]
    if not scored:
        if interrupted:
            raise KeyboardInterrupt
        raise FgvcError(f"None of the {len(chosen.splits[0])} images of {subject.dataset} can be read.")
    failures = {key: reason for each in pairs for key, reason in each.failures().items()}
    seconds = time.perf_counter() - started
    summary = summarise(scored, request, subject, chosen, failures, interrupted, seconds)
    gallery = most_telling(scored, request.telling)
    summary["gallery"] = [telling.as_json() for telling in gallery]
    return Study(summary, statistics.write(folder, summary, scored), gallery, interrupted)


class _Pass:
    """One run's way through its images: what goes in, and what was measured so far."""

    def __init__(
        self,
        ready: ReadyClassifier,
        split: Split,
        explainers: Sequence[NamedExplainer],
        measuring: Measuring,
        parts: KnownParts | None,
    ) -> None:
        self.ready, self.split, self.explainers = ready, split, explainers
        self.measuring, self.parts = measuring, parts
        self.gathering = Gathering()
        self.loader: EvaluationLoader | None = None

    def measure(self, bar: Progress) -> None:
        self.loader, done = self.ready.loader(self.split), 0
        self.ready.classifier.eval()
        for batch in self.loader:
            parts = None if self.parts is None else self.parts.of(batch.indices.tolist())
            text = f"{done} of {len(self.split)} images"
            with self.ready.memory_explained():
                self.gathering.add(
                    measure(self.ready, self.explainers, batch, parts, self.measuring, lambda n: bar.advance(n, text))  # noqa: B023
                )
            if not done:  # what is wrong from the start is said at the start
                self._refuse_out_of_range(self.gathering.all())
            done += len(batch.labels)

    def scored(self, baseline: NamedExplainer) -> list[Scored]:
        """Return what was measured, an entry for each explainer; nothing if there is no image."""
        names = self.ready.classifier.class_names
        gathered = self.gathering.all()
        self._refuse_out_of_range(gathered)
        return [
            Scored(self.ready, explainer, explainer is baseline, self.split, names, measured)
            for explainer, measured in zip(self.explainers, gathered, strict=False)
        ]

    def _refuse_out_of_range(self, gathered: Sequence[Measured]) -> None:
        """Raise an error for an explainer that does not keep to its contract: no figure of its maps means anything."""
        for explainer, measured in zip(self.explainers, gathered, strict=False):
            if not measured.array("in_range").all():
                raise explainer.out_of_range()

    def failures(self) -> dict[str, str]:
        """Return why images could not be read, by key."""
        found = {} if self.loader is None else self.loader.failures
        return {key: failure.reason for key, failure in found.items()}


def _measure_all(runs: Sequence[_Pass], passes: int) -> bool:
    """Measure with each run in turn; return whether that was interrupted."""
    try:
        with progress("explaining", passes, "passes") as bar:
            for run in runs:
                run.measure(bar)
    except KeyboardInterrupt:
        return True
    return False


def _measuring(request: StudyRequest, ready: ReadyClassifier) -> Measuring:
    target: str | int = request.target
    if target not in ("predicted", "true"):
        target = class_index(request.target, ready.classifier.class_names, "--target")
    return Measuring(request.cover, request.steps, request.curve_steps, target)


def _parts(subject: Subject, ready: ReadyClassifier, split: Split, tolerance: float) -> KnownParts | None:
    """Return where the parts are, if the split knows that and the data set knows which decide."""
    deciding = None if subject.opened is None else subject.opened.deciding_parts()
    if split.parts is None or deciding is None:
        return None
    classifier = ready.classifier
    return KnownParts(split, deciding, classifier.class_names, classifier.preprocessing, tolerance)
