"""Score every image of a split; metrics of the scores."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fgvc_cli.contracts import Classifier, Split
from fgvc_cli.devices import autocast
from fgvc_cli.runs.results import Averages, ClassMetrics, SplitMetrics, ValMetrics

GATHERED_BYTES = 64 * 2**20
"""Bytes of results that are kept on the device before they are copied, with one synchronization."""
ROWS = 4096
"""Number of images that are sorted at once."""


class Batch(Protocol):
    """Images of a split from a loader.

    Attributes:
        pixels: uint8 B,3,S,S.
        labels: B class indices (int64).
        indices: B positions in the split (int64).
    """

    @property
    def pixels(self) -> Tensor: ...  # noqa: D102
    @property
    def labels(self) -> Tensor: ...  # noqa: D102
    @property
    def indices(self) -> Tensor: ...  # noqa: D102


class Loader(Protocol):
    """Batches of a split; `failures` are the reasons of unreadable images by key, complete after a pass."""

    @property
    def failures(self) -> Mapping[str, str]: ...  # noqa: D102
    def __iter__(self) -> Iterator[Batch]: ...


@dataclass(frozen=True)
class Scores:
    """Class probabilities of the N images of a split that could be read.

    Attributes:
        probabilities: float32 N,K; a row is not finite if its scores were not.
        labels: int64 N, the true classes.
        keys: N short names, as in the split.
        loss: mean cross entropy in nats; NaN if no image was scored.
        failures: why an image could not be read, by its key.
        seconds: wall time, reading included.
    """

    probabilities: np.ndarray
    labels: np.ndarray
    keys: list[str]
    loss: float
    failures: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def classes(self) -> int:
        """K, the number of classes that the classifier knows."""
        return int(self.probabilities.shape[1])

    @cached_property
    def predicted(self) -> np.ndarray:
        """int64 N, the most probable class; -1 (wrong) where the probabilities are not finite."""
        finite = np.isfinite(self.probabilities).all(axis=1)
        return np.where(finite, self.probabilities.argmax(axis=1), -1) if len(self) else np.empty(0, np.int64)

    @property
    def confidence(self) -> np.ndarray:
        """float32 N, the probability of the predicted class."""
        return self.probabilities.max(axis=1) if len(self) else np.empty(0, np.float32)

    @cached_property
    def ranks(self) -> np.ndarray:
        """int64 N, number of classes ranked before the true one; ties go to the first class, as in `predicted`."""
        true = np.take_along_axis(self.probabilities, self.labels[:, None], axis=1)  # (N, 1)
        ahead = (self.probabilities > true).sum(axis=1)
        earlier = np.arange(self.classes) < self.labels[:, None]
        ahead += ((self.probabilities == true) & earlier).sum(axis=1)
        return np.where(self.predicted < 0, self.classes, ahead)

    def top(self, k: int) -> np.ndarray:
        """Return the most probable classes, best first: int64 N,min(k, K); ties go to the first class."""
        best = np.empty((len(self), min(k, self.classes)), np.int64)
        for start in range(0, len(self), ROWS):  # sorting all at once would double the memory
            rows = slice(start, start + ROWS)
            best[rows] = np.argsort(-self.probabilities[rows], axis=1, kind="stable")[:, :k]
        return best


def score(
    classifier: Classifier,
    loader: Loader,
    split: Split,
    precision: str = "fp32",
    on_batch: Callable[[int], object] | None = None,
    scores: Callable[[Any], Tensor] | None = None,
) -> Scores:
    """Score every image of a split, without augmentation and in evaluation mode.

    Batches do not synchronize with the device: results are collected there and copied in large portions.

    Args:
        classifier: on its device; the mode of each module is restored.
        loader: batches of the split, in any order, preprocessed for the classifier.
        split: the source of the keys; its labels index `classifier.class_names`.
        precision: "fp32" or "bf16", for autocast.
        on_batch: called with the number of images of each batch.
        scores: computes the scores B,K of a batch (float32); default: those of its pixels.
    """
    start = time.perf_counter()
    gathered = _Gathered(len(split), len(classifier.class_names))
    with evaluating(classifier):
        for batch in loader:
            logits = scores_of(classifier, batch.pixels, precision) if scores is None else scores(batch)
            gathered.add(logits, batch.labels, batch.indices)
            if on_batch is not None:
                on_batch(len(batch.labels))
        gathered.flush()
    return Scores(
        probabilities=gathered.probabilities[: gathered.filled],
        labels=gathered.labels[: gathered.filled],
        keys=[split.keys[i] for i in gathered.indices[: gathered.filled]],
        loss=gathered.mean_loss(),
        failures=dict(loader.failures),
        seconds=time.perf_counter() - start,
    )


def scores_of(classifier: Classifier, pixels: Tensor, precision: str) -> Tensor:
    """Return the scores of uint8 pixels B,3,S,S as float32 B,K on the device of the classifier."""
    with autocast(classifier.device, precision):
        scores = classifier.scores(classifier.normalize(pixels))
    return scores.float()


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Set evaluation mode in the block, and restore the mode of each module."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextmanager
def evaluating(classifier: Classifier) -> Iterator[None]:
    """Set evaluation and inference mode in the block, and restore the mode of each module."""
    with evaluation_mode(classifier), torch.inference_mode():
        yield


class _Gathered:
    """Results of batches, collected on the device and copied into arrays for the whole split.

    Args:
        images: maximum number of images.
        classes: K.
    """

    def __init__(self, images: int, classes: int) -> None:
        self.probabilities = np.empty((images, classes), np.float32)
        self.labels, self.indices = np.empty(images, np.int64), np.empty(images, np.int64)
        self.losses = np.empty(images, np.float32)
        self.filled = 0
        self._waiting: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        self._waiting_bytes = 0

    def add(self, logits: Tensor, labels: Tensor, indices: Tensor) -> None:
        """Add float32 scores B,K on the device, and B labels and indices on the host."""
        labels_there = labels.to(logits.device, non_blocking=True)
        losses = F.cross_entropy(logits, labels_there, reduction="none")
        probabilities = logits.softmax(dim=1)
        self._waiting.append((probabilities, losses, labels, indices))
        self._waiting_bytes += probabilities.nbytes
        if self._waiting_bytes > GATHERED_BYTES:
            self.flush()

    def flush(self) -> None:
        """Copy the collected results from the device."""
        if not self._waiting:
            return
        probabilities, losses, labels, indices = map(torch.cat, zip(*self._waiting, strict=True))
        part = slice(self.filled, self.filled + len(labels))
        self.probabilities[part], self.losses[part] = probabilities.cpu().numpy(), losses.cpu().numpy()
        self.labels[part], self.indices[part] = labels.cpu().numpy(), indices.cpu().numpy()
        self.filled, self._waiting, self._waiting_bytes = part.stop, [], 0

    def mean_loss(self) -> float:
        """Return the mean cross entropy; in double precision, so that it does not depend on the batch size."""
        return float(self.losses[: self.filled].mean(dtype=np.float64)) if self.filled else float("nan")


BINS = 15


def expected_calibration_error(scores: Scores, bins: int = BINS) -> float:
    """Compute the expected calibration error, in [0, 1].

    Images are binned by the probability of the predicted class into (0, 1/bins], (1/bins, 2/bins], ...; the distance
    between mean confidence and accuracy of a bin is weighted by its number of images. Images whose probabilities are
    not finite are ignored. Without images it is 0.

    Reference: Guo et al. 2017, On Calibration of Modern Neural Networks, section 2, equation 3.
    """
    finite = scores.predicted >= 0
    confidence = scores.confidence[finite].astype(np.float64)
    correct = (scores.predicted == scores.labels)[finite]
    if not len(confidence):
        return 0.0
    bin_of = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    distance = np.bincount(bin_of, weights=correct - confidence, minlength=bins)
    return float(np.abs(distance).sum() / len(confidence))


def confusion_matrix(scores: Scores) -> np.ndarray:
    """Return the number of images of class i (row) predicted as class j (column): int64 K,K."""
    classes = scores.classes
    scored = scores.predicted >= 0
    codes = scores.labels[scored] * classes + scores.predicted[scored]
    return np.bincount(codes, minlength=classes * classes).reshape(classes, classes)


def split_metrics(scores: Scores, class_names: Sequence[str]) -> SplitMetrics:
    """Compute the metrics of a split."""
    per_class = class_metrics(scores, class_names)
    present = [row for row in per_class if row.images]
    images = len(scores)
    correct = scores.predicted == scores.labels
    return SplitMetrics(
        images=images,
        failed=len(scores.failures),
        not_finite=int((scores.predicted < 0).sum()),
        classes=scores.classes,
        classes_present=len(present),
        top1=float(correct.mean()) if images else None,
        top5=float((scores.ranks < 5).mean()) if images and scores.classes > 5 else None,
        loss=scores.loss if math.isfinite(scores.loss) else None,
        macro=_average(present, [1] * len(present)),
        weighted=_average(present, [row.images for row in present]),
        calibration_error=expected_calibration_error(scores) if images else None,
        chance={
            "uniform": 1 / scores.classes,
            "majority": max(row.images for row in present) / images if images else None,
        },
        per_class=per_class,
    )


def val_metrics(scores: Scores) -> ValMetrics:
    """Compute the metrics that every epoch has of the validation split; at least one image was scored."""
    return ValMetrics(
        images=len(scores),
        loss=scores.loss if math.isfinite(scores.loss) else None,
        top1=float((scores.ranks < 1).mean()),
        top5=float((scores.ranks < 5).mean()) if scores.classes > 5 else None,
    )


def class_metrics(scores: Scores, class_names: Sequence[str]) -> list[ClassMetrics]:
    """Compute the metrics of every class, in the classifier's order."""
    from sklearn.metrics import precision_recall_fscore_support

    if not len(scores):
        return [ClassMetrics(name, 0) for name in class_names]
    images = np.bincount(scores.labels, minlength=scores.classes)
    columns = precision_recall_fscore_support(
        scores.labels, scores.predicted, labels=np.arange(scores.classes), average=None, zero_division=0.0
    )
    precision, recall, f1 = (column.tolist() for column in columns[:3])
    return [
        ClassMetrics(name, int(images[i]), precision[i], recall[i], f1[i], recall[i])
        if images[i]
        else ClassMetrics(name, 0)
        for i, name in enumerate(class_names)
    ]


def _average(rows: Sequence[ClassMetrics], weights: Sequence[int]) -> Averages:
    if not rows:
        return Averages()
    table = np.array([(row.precision, row.recall, row.f1) for row in rows], dtype=float)
    return Averages(*(float(np.average(column, weights=weights)) for column in table.T))


LEVEL = 0.05
"""Significance level of corrected p-values."""


def mcnemar(first: np.ndarray, second: np.ndarray) -> float:
    """Return the two-sided p-value of McNemar's exact test; bool N, whether each of two classifiers is correct."""
    from scipy.stats import binomtest

    alone = int((first & ~second).sum()), int((second & ~first).sum())
    return float(binomtest(alone[0], sum(alone)).pvalue) if sum(alone) else 1.0
