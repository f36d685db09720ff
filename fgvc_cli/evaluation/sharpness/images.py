"""Which images the loss around a run's weights is of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fgvc_cli.contracts import Split
from fgvc_cli.data.splits import subset
from fgvc_cli.data.spread import spread
from fgvc_cli.evaluation.sharpness.request import SharpnessRequest
from fgvc_cli.evaluation.subject import Subject, choose
from fgvc_cli.registry import Registry
from fgvc_cli.runs.loading import read_class_names


@dataclass(frozen=True)
class Chosen:
    """The images for a run.

    Attributes:
        subject: the split that they are of.
        split: so many of them as are wanted, spread over the classes.
    """

    subject: Subject
    split: Split

    @property
    def words(self) -> str:
        """In words, which images they are."""
        chosen, available = len(self.split), len(self.subject.split)
        source = f"{self.subject.split.name} of {self.subject.data or self.subject.dataset}"
        return f"{chosen}, {source}" + f", spread over its {available}" * (chosen < available)


def choose_images(request: SharpnessRequest, registry: Registry) -> list[Chosen]:
    """Choose the images for each run: of those it was trained on, unless others are named.

    Raises:
        UsageError: there is no such split, or classes are unknown to a run.
        FgvcError: images or a run are not there.
    """
    wanted = replace(request.evaluation.subject, learnt=True)
    chosen = []
    for model in request.evaluation.models:
        subject = choose(wanted, model.parent, read_class_names(model), registry)
        indices = spread(subject.split.labels, request.limit)
        chosen.append(Chosen(subject, subset(subject.split, indices, subject.split.name, subject.split.origin)))
    return chosen


def notes_on_images(chosen: Sequence[Chosen], runs: Sequence[Path]) -> list[str]:
    """Return lines on runs that are measured on images they were not trained on, or on other images than each other."""
    notes = [
        f"{run}: these are not images that it was trained on, whose loss was minimised."
        for run, images in zip(runs, chosen, strict=True)
        if images.subject.is_own and images.subject.met != "learnt"
    ]
    different = {(str(images.subject.data or images.subject.dataset), *images.split.keys) for images in chosen}
    if len(different) > 1:
        notes.append("The runs are measured on different images, each on its own.")
    return notes
