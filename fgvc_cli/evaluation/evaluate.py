"""Evaluate a run on a split of its dataset or on other images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.evaluation.split_selection import SelectedSplit, SplitRequest, results_folder, select_split
from fgvc_cli.registry import Registry
from fgvc_cli.scoring import results
from fgvc_cli.scoring.model import Computing, ReadyClassifier, load, run_of
from fgvc_cli.scoring.results import EvaluationSummary, summarize
from fgvc_cli.scoring.scores import score


@dataclass(frozen=True)
class EvaluationRequest:
    """Which runs, on which images, and where the results go.

    Attributes:
        models: model files, each once.
        subject: which images.
        computing: where and how.
        out: folder for the results; None: one in the run, or a new one where there are several runs.
        force: whether `out` may exist.
    """

    models: Sequence[Path]
    subject: SplitRequest = field(default_factory=SplitRequest)
    computing: Computing = field(default_factory=Computing)
    out: Path | None = None
    force: bool = False

    @property
    def runs(self) -> tuple[Path, ...]:
        """What a person names the runs by."""
        return tuple(run_of(model) for model in self.models)


def refuse_what_does_not_go_together(
    runs: Sequence[Path], ensemble: bool, sharpness: bool, around: Mapping[str, Any], per_class: bool
) -> None:
    """Refuse a command line of which one half would be ignored.

    Args:
        runs: that were named.
        ensemble, sharpness: whether these are asked for.
        around: options of sharpness by field; None: not given.
        per_class: whether all classes are to be listed.

    Raises:
        UsageError: it says which, and what to do.
    """
    if ensemble and sharpness:
        raise UsageError("--ensemble and --sharpness are two evaluations: ask for one at a time.")
    if ensemble and len(runs) < 2:
        raise UsageError("--ensemble averages several runs: name two or more, fgvc evaluate RUN RUN --ensemble.")
    given = [f"--{name.replace('_', '-')}" for name, value in around.items() if value is not None]
    if given and not sharpness:
        raise UsageError(f"{given[0]} belongs to the measure of sharpness: add --sharpness.")
    if per_class and sharpness:
        raise UsageError("--sharpness has no figures of classes: leave out --per-class.")


@dataclass(frozen=True)
class Evaluation:
    """A finished evaluation.

    Attributes:
        summary: the metrics, and what they are of.
        files: what was written.
    """

    summary: EvaluationSummary
    files: list[Path]

    @property
    def folder(self) -> Path:
        """Where the files are."""
        return self.files[-1].parent


@dataclass(frozen=True)
class PreparedEvaluation:
    """A classifier, the images it will be evaluated on, and the folder for the results.

    Attributes:
        ready: the classifier.
        subject: the images.
        folder: where the results go.
    """

    ready: ReadyClassifier
    subject: SelectedSplit
    folder: Path

    def notes(self) -> list[str]:
        """Return what a person should know before the figures come."""
        return [images_note(self.subject), *self.subject.notes]

    def run(self, on_batch: Callable[[int], object] | None = None) -> Evaluation:
        """Score the images and write the results.

        Args:
            on_batch: called with the number of images of each batch, for a progress bar.

        Raises:
            FgvcError: no image can be read, memory runs out, or the results cannot be written.
        """
        ready, split = self.ready, self.subject.split
        with ready.memory_explained():
            scores = score(ready.classifier, ready.loader(split), split, ready.precision, on_batch)
        if not len(scores):
            raise FgvcError(f"None of the {len(split)} images of {self.subject.dataset} ({split.name}) can be read.")
        class_names = ready.classifier.class_names
        subject = self.subject
        summary = summarize(
            scores,
            class_names,
            split,
            runs=[ready.run],
            dataset=subject.dataset,
            data=subject.data,
            device=ready.classifier.device,
            precision=ready.precision,
            notes=subject.notes,
            preprocessing=ready.classifier.preprocessing,
        )
        written = results.write(self.folder, summary, scores, class_names)
        return Evaluation(summary, written)


def images_note(subject: SelectedSplit) -> str:
    """Return the line that says which images will be classified."""
    return f"images     {len(subject.split)}, {subject.split.name} of {subject.data or subject.dataset}"


def prepare(request: EvaluationRequest, registry: Registry) -> PreparedEvaluation:
    """Load a classifier and open the images it is to be evaluated on.

    Args:
        request: names one model, whose folder names the run's own dataset and takes the results.
        registry: finds datasets.

    Raises:
        FgvcError: model or images are not there or cannot be used.
        UsageError: the request cannot be met.
    """
    (model_file,) = request.models
    ready = load(model_file, request.computing)
    run_folder = model_file.parent
    subject = select_split(request.subject, run_folder, ready.classifier.class_names, registry)
    folder = results_folder(run_folder, subject, request.out, request.force)
    return PreparedEvaluation(ready, subject, folder)
