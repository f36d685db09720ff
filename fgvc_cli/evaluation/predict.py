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
from fgvc_cli.scoring.taxonomy import SureName, SureNames

logger = logging.getLogger(__name__)

NOT_FINITE = "the classifier's scores are not finite"


@dataclass(frozen=True)
class Prediction:
    """The prediction for an image.

    Attributes:
        image: its file, or "image N" for an array.
        classes: the top-k classes with probabilities, in descending order.
        sure: the lowest class or group that the classifier is sure of; None if that was not requested.
    """

    image: str
    classes: tuple[tuple[str, float], ...]
    sure: SureName | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        classes = [{"class": name, "probability": round(probability, 6)} for name, probability in self.classes]
        sure = {} if self.sure is None else {"sure": self.sure.as_json()}
        return {"image": self.image, "classes": classes, **sure}


@dataclass
class Predictions:
    """Predicts when iterated over, batch by batch, with a few batches in memory at a time.

    Attributes:
        ready: the classifier.
        images: files, or uint8 arrays H,W,3.
        top_k: number of classes per image; capped at the number of classes.
        names: names the class or group that the classifier is sure of; None: not requested.
        failures: why an image has no prediction, by its name; complete after the iteration.
    """

    ready: ReadyClassifier
    images: Sequence[Path | np.ndarray]
    top_k: int = 5
    failures: dict[str, str] = field(default_factory=dict)
    names: SureNames | None = None

    def __iter__(self) -> Iterator[list[Prediction]]:
        """Yield the predictions batch by batch, in the order of the images; images that cannot be read are skipped."""
        names = [f"image {i}" if isinstance(image, np.ndarray) else str(image) for i, image in enumerate(self.images)]
        loader = self.ready.loader(Split("images", self.images, [0] * len(names), names))
        self.ready.classifier.eval()
        for batch in loader:
            # Inference mode must not leak to the caller, so it is confined to `_best`.
            with self.ready.memory_explained():
                best = self._best(batch)
            yield self._named([names[i] for i in batch.indices.tolist()], *best)
        self.failures |= loader.failures

    @torch.inference_mode()
    def _best(self, batch: ImageBatch) -> tuple[list[list[float]], list[list[int]], list[SureName] | None]:
        """Return probabilities and indices of the top-k classes, and the names that the classifier is sure of."""
        probabilities = self.ready.scores(batch).softmax(dim=1)
        best = probabilities.topk(min(self.top_k, probabilities.shape[1]), dim=1)
        sure = None if self.names is None else self.names(probabilities.cpu().numpy())
        return best.values.tolist(), best.indices.tolist(), sure

    def _named(
        self,
        images: list[str],
        probabilities: list[list[float]],
        classes: list[list[int]],
        sure: list[SureName] | None,
    ) -> list[Prediction]:
        names = self.ready.classifier.class_names
        predictions = []
        each_sure = [None] * len(images) if sure is None else sure
        for image, values, indices, name in zip(images, probabilities, classes, each_sure, strict=True):
            if np.isnan(values[0]):
                self.failures[image] = NOT_FINITE
                logger.warning(f"skipping {image}: {NOT_FINITE}")
                continue
            top = tuple((names[i], p) for i, p in zip(indices, values, strict=True))
            predictions.append(Prediction(image, top, name))
        return predictions
