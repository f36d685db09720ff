"""Predict the top-k classes of images."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fgvc_cli.contracts import Split
from fgvc_cli.data.loading import ImageBatch
from fgvc_cli.scoring.model import ReadyClassifier

logger = logging.getLogger(__name__)

NOT_FINITE = "the classifier's scores are not finite"


@dataclass(frozen=True)
class Prediction:
    """The file of an image ("image N" for an array), and its top-k classes with probabilities, in descending order."""

    image: str
    classes: tuple[tuple[str, float], ...]

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        classes = [{"class": name, "probability": round(probability, 6)} for name, probability in self.classes]
        return {"image": self.image, "classes": classes}


@dataclass
class Predictions:
    """Predicts when iterated over, batch by batch, with a few batches in memory at a time.

    Attributes:
        ready: the classifier.
        images: files, or uint8 arrays H,W,3.
        top_k: number of classes per image; capped at the number of classes.
        failures: why an image has no prediction, by its name; complete after the iteration.
    """

    ready: ReadyClassifier
    images: Sequence[Path | np.ndarray]
    top_k: int = 5
    failures: dict[str, str] = field(default_factory=dict)

    def __iter__(self) -> Iterator[list[Prediction]]:
        """Yield the predictions batch by batch, in the order of the images; images that cannot be read are skipped."""
        names = [f"image {i}" if isinstance(image, np.ndarray) else str(image) for i, image in enumerate(self.images)]
        loader = self.ready.loader(Split("images", self.images, [0] * len(names), names))
        self.ready.classifier.eval()
        for batch in loader:
            # Inference mode must not leak to the caller, so it is confined to `_top_k`.
            with self.ready.memory_explained():
                probabilities, classes = self._top_k(batch)
            yield self._named([names[i] for i in batch.indices.tolist()], probabilities, classes)
        self.failures |= loader.failures

    @torch.inference_mode()
    def _top_k(self, batch: ImageBatch) -> tuple[list[list[float]], list[list[int]]]:
        probabilities = self.ready.scores(batch).softmax(dim=1)
        best = probabilities.topk(min(self.top_k, probabilities.shape[1]), dim=1)
        return best.values.tolist(), best.indices.tolist()

    def _named(self, images: list[str], probabilities: list[list[float]], classes: list[list[int]]) -> list[Prediction]:
        names = self.ready.classifier.class_names
        predictions = []
        for image, values, indices in zip(images, probabilities, classes, strict=True):
            if np.isnan(values[0]):
                self.failures[image] = NOT_FINITE
                logger.warning(f"skipping {image}: {NOT_FINITE}")
                continue
            predictions.append(Prediction(image, tuple((names[i], p) for i, p in zip(indices, values, strict=True))))
        return predictions
