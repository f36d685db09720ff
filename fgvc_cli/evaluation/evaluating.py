"""The whole of `fgvc evaluate`: from a run and a request to figures and files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fgvc_cli.errors import FgvcError
from fgvc_cli.evaluation import results
from fgvc_cli.evaluation.computing import ReadyClassifier, load
from fgvc_cli.evaluation.request import EvaluationRequest
from fgvc_cli.evaluation.scoring import score
from fgvc_cli.evaluation.subject import Subject, choose
from fgvc_cli.evaluation.summary import Occasion
from fgvc_cli.registry import Registry


@dataclass(frozen=True)
class Evaluation:
    """A finished evaluation.

    Attributes:
        summary: what `summary.json` holds.
        files: what was written.
    """

    summary: dict[str, Any]
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
    subject: Subject
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
        summary = self._occasion().summary(scores, class_names)
        written = results.write(self.folder, summary, scores, class_names)
        return Evaluation(summary, written)

    def _occasion(self) -> Occasion:
        ready, subject = self.ready, self.subject
        classifier = ready.classifier
        return Occasion(
            ready.run,
            subject.dataset,
            subject.data,
            subject.split,
            classifier.device,
            ready.precision,
            subject.notes,
            classifier.preprocessing,
        )


def images_note(subject: Subject) -> str:
    """Return the line that says which images will be classified."""
    return f"images     {len(subject.split)}, {subject.split.name} of {subject.data or subject.dataset}"


def prepare(request: EvaluationRequest, registry: Registry) -> PreparedEvaluation:
    """Load a classifier and open the images it is to be evaluated on.

    Args:
        request: names one model, whose folder names the run's own data set and takes the results.
        registry: finds data sets.

    Raises:
        FgvcError: model or images are not there or cannot be used.
        UsageError: the request cannot be met.
    """
    (model_file,) = request.models
    ready = load(model_file, request.computing)
    run_folder = model_file.parent
    subject = choose(request.subject, run_folder, ready.classifier.class_names, registry)
    folder = results.choose_folder(run_folder, subject, request.out, request.force)
    return PreparedEvaluation(ready, subject, folder)
