"""Explain a whole split and score the saliency maps."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fgvc_cli.contracts import Split
from fgvc_cli.data.loading import EvaluationLoader
from fgvc_cli.errors import FgvcError
from fgvc_cli.evaluation.images import Subject, choose, choose_folder
from fgvc_cli.explaining import statistics
from fgvc_cli.explaining.explainers import NamedExplainer, make_explainers, with_baseline
from fgvc_cli.explaining.faithfulness import KnownParts
from fgvc_cli.explaining.measuring import Gathering, Measured, Measuring, measure
from fgvc_cli.explaining.request import StudyRequest
from fgvc_cli.explaining.selection import choose_images, class_index
from fgvc_cli.explaining.statistics import Scored, Telling, most_telling, summarize
from fgvc_cli.progress import Progress, progress
from fgvc_cli.registry import Registry
from fgvc_cli.scoring.model import ReadyClassifier, load

logger = logging.getLogger(__name__)


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
    """Score explainers over a dataset and write the results.

    Args:
        request: what is wanted.
        registry: finds explainers and datasets.

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
    summary = summarize(scored, request, subject, chosen, failures, interrupted, seconds)
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
    """Return where the parts are, if the split knows that and the dataset knows which decide."""
    deciding = None if subject.opened is None else subject.opened.deciding_parts()
    if split.parts is None or deciding is None:
        return None
    classifier = ready.classifier
    return KnownParts(split, deciding, classifier.class_names, classifier.preprocessing, tolerance)
