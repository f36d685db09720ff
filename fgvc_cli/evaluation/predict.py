"""Predict the top-k classes of images."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fgvc_cli.contracts import Split
from fgvc_cli.data.loading import ImageBatch
from fgvc_cli.evaluation.answers import UNKNOWN
from fgvc_cli.scoring.calibration.stored import Decisions, Reason
from fgvc_cli.scoring.model import ReadyClassifier
from fgvc_cli.scoring.taxonomy import SureName, SureNames

logger = logging.getLogger(__name__)

NOT_FINITE = "the classifier's scores are not finite"


@dataclass(frozen=True)
class Prediction:
    """The prediction for an image.

    Attributes:
        image: its file, or "image N" for one in memory.
        classes: the top-k classes with probabilities, in descending order.
        sure: the lowest class or group that the classifier is sure of; None if that was not requested.
        answer: the most probable class, or "unknown"; None if the run is not calibrated. With a calibration, all
            probabilities are calibrated.
        reason: why the answer is unknown: "uncertain", its probability is too low, or "unfamiliar", the image is unlike
            everything seen in training; empty otherwise.
        set: the prediction set, with probabilities in descending order; None without a calibration that has sets.
    """

    image: str
    classes: tuple[tuple[str, float], ...]
    sure: SureName | None = None
    answer: str | None = None
    reason: Reason = ""
    set: tuple[tuple[str, float], ...] | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        sure = {} if self.sure is None else {"sure": self.sure.as_json()}
        answer = {} if self.answer is None else {"answer": self.answer, "reason": self.reason}
        chosen = {} if self.set is None else {"set": _listed(self.set)}
        return {"image": self.image, "classes": _listed(self.classes), **sure, **answer, **chosen}


def _listed(classes: Sequence[tuple[str, float]]) -> list[dict[str, Any]]:
    return [{"class": name, "probability": round(probability, 6)} for name, probability in classes]


@dataclass
class Predictions:
    """Predicts when iterated over, batch by batch, with a few batches in memory at a time.

    Attributes:
        ready: the classifier.
        images: files, the bytes of files, or uint8 arrays H,W,3.
        top_k: number of classes per image; capped at the number of classes.
        names: names the class or group that the classifier is sure of; None: not requested.
        sets: whether to give prediction sets, if the calibration has them.
        failures: why an image has no prediction, by its name; complete after the iteration.
    """

    ready: ReadyClassifier
    images: Sequence[Path | bytes | np.ndarray]
    top_k: int = 5
    failures: dict[str, str] = field(default_factory=dict)
    names: SureNames | None = None
    sets: bool = True

    def __iter__(self) -> Iterator[list[Prediction]]:
        """Yield the predictions batch by batch, in the order of the images; images that cannot be read are skipped."""
        names = [str(image) if isinstance(image, Path) else f"image {i}" for i, image in enumerate(self.images)]
        images: Sequence[Any] = self.images
        loader = self.ready.loader(Split("images", images, [0] * len(names), names))
        self.ready.classifier.eval()
        for batch in loader:
            # Inference mode must not leak to the caller, so it is confined to `_best`.
            with self.ready.memory_explained():
                best = self._best(batch)
            yield self._named([names[i] for i in batch.indices.tolist()], best)
        self.failures |= loader.failures

    @torch.inference_mode()
    def _best(self, batch: ImageBatch) -> _Best:
        if self.ready.calibration is None:
            decisions, probabilities = None, self.ready.scores(batch).softmax(dim=1)
        else:
            decisions = self.ready.decide(batch)
            probabilities = torch.from_numpy(decisions.probabilities)
        best = probabilities.topk(min(self.top_k, probabilities.shape[1]), dim=1)
        sure = None if self.names is None else self.names(probabilities.cpu().numpy())
        return _Best(best.values.tolist(), best.indices.tolist(), sure, decisions)

    def _named(self, images: list[str], best: _Best) -> list[Prediction]:
        names = self.ready.classifier.class_names
        predictions = []
        for i, image in enumerate(images):
            if np.isnan(best.probabilities[i][0]):
                self.failures[image] = NOT_FINITE
                logger.warning(f"skipping {image}: {NOT_FINITE}")
                continue
            top = tuple((names[j], p) for j, p in zip(best.classes[i], best.probabilities[i], strict=True))
            found = Prediction(image, top, None if best.sure is None else best.sure[i])
            predictions.append(found if best.decisions is None else self._answered(found, best.decisions, i))
        return predictions

    def _answered(self, found: Prediction, decisions: Decisions, index: int) -> Prediction:
        """Add the answer and the prediction set."""
        names, reason = self.ready.classifier.class_names, decisions.reason(index)
        chosen = None
        if self.sets and decisions.members is not None:
            chosen = tuple((names[j], float(decisions.probabilities[index, j])) for j in decisions.set_of(index))
        return replace(found, answer=UNKNOWN if reason else found.classes[0][0], reason=reason, set=chosen)


@dataclass(frozen=True)
class _Best:
    """Probabilities and indices of the top-k classes of a batch, the sure names, and what a calibration decides."""

    probabilities: list[list[float]]
    classes: list[list[int]]
    sure: list[SureName] | None
    decisions: Decisions | None
