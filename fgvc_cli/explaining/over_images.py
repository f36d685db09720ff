"""Explaining images one by one: batched over images, for each run and explainer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from fgvc_cli.contracts import Split
from fgvc_cli.data.loading import ImageBatch
from fgvc_cli.display import console
from fgvc_cli.evaluation.computing import ReadyClassifier
from fgvc_cli.explaining.choosing import class_index
from fgvc_cli.explaining.covering import Cover, filling
from fgvc_cli.explaining.explained import ExplainedImage, Explanation, Sight, Subject
from fgvc_cli.explaining.explainers import NamedExplainer
from fgvc_cli.explaining.occluding import Look, looks

PREDICTED, TRUE = "predicted", "true"
"""What `target` may be besides the name of a class."""


@dataclass
class ExplainingImages:
    """Goes through images in batches; no more than a few batches are in memory, however many images there are.

    Attributes:
        runs: the classifiers, with one batch size.
        explainers: each explains every run.
        subjects: the images, of different names.
        target: the class that maps explain: "predicted", "true" or the name of a class.
        cover: how the most marked part is covered; None: it is not.
        steps: how often more is covered; 0 without `cover`.
        failures: why an image was left out, by name; complete once all have been taken.

    Raises:
        UsageError: an explainer cannot explain a run, or a run does not know the target class.
    """

    runs: Sequence[ReadyClassifier]
    explainers: Sequence[NamedExplainer]
    subjects: Sequence[Subject]
    target: str = PREDICTED
    cover: Cover | None = None
    steps: int = 0
    failures: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for ready in self.runs:
            for explainer in self.explainers:
                explainer.check(ready.classifier)
        if self.target == TRUE:
            self._leave_out_unlabelled()
        elif self.target != PREDICTED:
            for ready in self.runs:
                class_index(self.target, ready.classifier.class_names, "--target")

    def __iter__(self) -> Iterator[list[ExplainedImage]]:
        """Give the explained images batch by batch, in their order; those that cannot be read are left out."""
        for indices, pixels in self._batches():
            subjects = [self.subjects[i] for i in indices]
            explanations = [
                self._explanations(ready, explainer, seen, subjects)
                for ready, seen in zip(self.runs, pixels, strict=True)
                for explainer in self.explainers
            ]
            explained = [ExplainedImage(s, [of[i] for of in explanations]) for i, s in enumerate(subjects)]
            yield [image for image in explained if self._is_finite(image)]

    def _leave_out_unlabelled(self) -> None:
        for subject in self.subjects:
            if subject.true is None:
                self.failures[subject.name] = (
                    "its true class is not known; it would be in a folder named after one of the run's classes"
                )
        self.subjects = [subject for subject in self.subjects if subject.true is not None]

    def _batches(self) -> Iterator[tuple[list[int], list[Tensor]]]:
        """Give the positions of some images that every run could read, and their pixels for each run."""
        names = [subject.name for subject in self.subjects]
        split = Split("images", [subject.source for subject in self.subjects], [0] * len(names), names)
        loaders = [ready.loader(split) for ready in self.runs]
        streams = [iter(loader) for loader in loaders]
        waiting: list[ImageBatch | None] = [None] * len(loaders)
        while True:
            for k, (loader, stream) in enumerate(zip(loaders, streams, strict=True)):
                loader.failures.update(loaders[0].failures)  # so that it does not warn of the same images again
                waiting[k] = waiting[k] or next(stream, None)
            self.failures.update(
                {key: failure.reason for loader in loaders for key, failure in loader.failures.items()}
            )
            batches = [batch for batch in waiting if batch is not None]
            if len(batches) < len(loaders):
                return
            # A loader leaves out a batch of which it can read nothing: they may not all be at the same one.
            places = [
                int(batch.indices[0]) // loader.batch_size for batch, loader in zip(batches, loaders, strict=True)
            ]
            waiting = [batch if place > min(places) else None for batch, place in zip(batches, places, strict=True)]
            indices, pixels = _common(batches)
            if indices:
                yield indices, pixels

    def _explanations(
        self, ready: ReadyClassifier, explainer: NamedExplainer, pixels: Tensor, subjects: Sequence[Subject]
    ) -> list[Explanation]:
        """Explain what one run says of a batch."""
        names = ready.classifier.class_names
        targets = self._targets(names, subjects)
        cover = self.cover or Cover()
        of_looks = [
            _sights(look, names, subjects)
            for look in looks(explainer, ready, pixels, targets, cover, self.steps if self.cover else 0)
        ]
        fills = filling(pixels, cover.fill).permute(0, 2, 3, 1).cpu().numpy()
        preprocessing = ready.classifier.preprocessing
        return [
            Explanation(str(ready.run), explainer.name, preprocessing, fill, list(sights))
            for fill, sights in zip(fills, zip(*of_looks, strict=True), strict=True)
        ]

    def _targets(self, class_names: Sequence[str], subjects: Sequence[Subject]) -> Tensor | None:
        """Return the class that each map is to explain, or None for the predicted one."""
        if self.target == PREDICTED:
            return None
        wanted = [subject.true or "" if self.target == TRUE else self.target for subject in subjects]
        return torch.tensor([class_index(name, class_names, "--target") for name in wanted])

    def _is_finite(self, image: ExplainedImage) -> bool:
        if all(np.isfinite(sight.probability) for e in image.explanations for sight in e.sights):
            return True
        self.failures[image.subject.name] = "the classifier's scores are not finite"
        console.warn(f"left out: {image.subject.name}: {self.failures[image.subject.name]}.")
        return False


def _common(batches: Sequence[ImageBatch]) -> tuple[list[int], list[Tensor]]:
    """Return the positions that all batches have, and the pixels of these images in each."""
    held = [batch.indices.tolist() for batch in batches]
    common = sorted(set(held[0]).intersection(*held[1:]))
    pixels = [b.pixels[[list_.index(i) for i in common]] for b, list_ in zip(batches, held, strict=True)]
    return common, pixels


def _sights(look: Look, class_names: Sequence[str], subjects: Sequence[Subject]) -> list[Sight]:
    """Take a batch's look apart, image by image."""
    found = []
    for i, subject in enumerate(subjects):
        probabilities = look.probabilities[i].numpy()
        predicted, explained = int(probabilities.argmax()), int(look.targets[i])
        true = class_names.index(subject.true) if subject.true in class_names else None
        found.append(
            Sight(
                covered=float(look.covered[i].float().mean()),
                predicted=class_names[predicted],
                probability=float(probabilities[predicted]),
                explained=class_names[explained],
                explained_probability=float(probabilities[explained]),
                true_probability=None if true is None else float(probabilities[true]),
                map=look.maps[i].numpy(),
                mask=look.covered[i].numpy(),
            )
        )
    return found
