"""Predict the top-k classes of images."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from fgvc_cli.contracts import Split
from fgvc_cli.data.images import find_images
from fgvc_cli.errors import FgvcError
from fgvc_cli.scoring.model import ReadyClassifier
from fgvc_cli.scoring.scores import scores_of

logger = logging.getLogger(__name__)

NOT_FINITE = "the classifier's scores are not finite"


@dataclass(frozen=True)
class Prediction:
    """The likeliest classes of an image, best first, as (class, probability).

    Attributes:
        image: the file.
        classes: k pairs.
    """

    image: str
    classes: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Inputs:
    """What a person named, as image files.

    Attributes:
        images: files, each once, in the order they were named in.
        failures: why a path gave no image, by path.
    """

    images: list[Path]
    failures: dict[str, str] = field(default_factory=dict)


def find_inputs(paths: Sequence[Path]) -> Inputs:
    """List the images that files and folders name; folders are searched through, links that lead back excepted.

    A file is taken for an image whatever its name ends in. A path that is not there, or a folder without images,
    becomes a failure.

    Raises:
        FgvcError: there is no image at all.
    """
    images: dict[Path, None] = {}
    failures: dict[str, str] = {}
    for path in paths:
        if not path.exists():
            failures[str(path)] = "there is no such file or folder"
            continue
        try:
            found = find_images(path) if path.is_dir() else [path]
        except FgvcError as error:
            failures[str(path)] = str(error)
            continue
        if not found:
            failures[str(path)] = "no image is in this folder"
        images.update(dict.fromkeys(found))
    if not images:
        causes = "; ".join(f"{path}: {reason}" for path, reason in failures.items())
        raise FgvcError(f"There is no image. {causes}. Name image files, or folders of them.")
    return Inputs(list(images), failures)


@dataclass
class Predicting:
    """Goes through images in batches; no more than a few batches are in memory, however many images there are.

    Attributes:
        ready: the classifier.
        images: files.
        top_k: how many classes to name for each image.
        failures: why an image got no prediction, by file; complete once all predictions are taken.
        predicted: how many images got one so far.
    """

    ready: ReadyClassifier
    images: Sequence[Path]
    top_k: int
    failures: dict[str, str] = field(default_factory=dict)
    predicted: int = 0

    def __iter__(self) -> Iterator[list[Prediction]]:
        """Give the predictions batch by batch, in the order of the images; those that cannot be read are left out."""
        keys = [str(path) for path in self.images]
        loader = self.ready.loader(Split("images", self.images, [0] * len(keys), keys))
        self.predicted = 0
        self.ready.classifier.eval()
        for batch in loader:
            # Outside of `_likeliest`, nothing of inference mode may leak to whoever takes the predictions.
            with self.ready.memory_explained():
                probabilities, classes = self._likeliest(batch.pixels)
            yield self._named([keys[i] for i in batch.indices.tolist()], probabilities, classes)
        self.failures.update({key: failure.reason for key, failure in loader.failures.items()})

    @torch.inference_mode()
    def _likeliest(self, pixels: Tensor) -> tuple[list[list[float]], list[list[int]]]:
        classifier = self.ready.classifier
        probabilities = scores_of(classifier, pixels, self.ready.precision).softmax(dim=1)
        best = probabilities.topk(min(self.top_k, probabilities.shape[1]), dim=1)
        return best.values.tolist(), best.indices.tolist()

    def _named(self, keys: list[str], probabilities: list[list[float]], classes: list[list[int]]) -> list[Prediction]:
        names = self.ready.classifier.class_names
        predictions = []
        for key, values, indices in zip(keys, probabilities, classes, strict=True):
            if values[0] != values[0]:
                self.failures[key] = NOT_FINITE
                logger.warning(f"left out: {key}: {NOT_FINITE}")
                continue
            self.predicted += 1
            predictions.append(Prediction(key, tuple((names[i], p) for i, p in zip(indices, values, strict=True))))
        return predictions
