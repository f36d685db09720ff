"""Move batches to the device, augment and normalize them there, and turn labels into targets."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fgvc_cli.config.train_options import AugmentOptions
from fgvc_cli.contracts import Classifier
from fgvc_cli.data.batch_augmentation.batch import BatchAugmentation, mix_batch
from fgvc_cli.data.loading import ImageBatch

AHEAD = 2
"""Maximum number of updates queued on a GPU when the next batch is sent to it. One keeps it busy; without a limit, the
program would run ahead and fill its memory with batches."""


class StagedBatch(NamedTuple):
    """A batch on the device."""

    images: Tensor
    """B,3,S,S, augmented, normalized and mixed"""
    targets: Tensor
    """B class indices, or B,K probabilities"""
    labels: Tensor
    """int64 B, the class of each image before mixing"""


class Staging:
    """Sends batches to the device, applies their augmentation there, normalizes and mixes them.

    On a CUDA GPU this happens in a separate stream. The program runs ahead of the GPU: after it has queued an update,
    it queues the next batch, which is copied and augmented while the GPU computes the update. The next update waits
    only for its batch.

    Args:
        classifier: whose normalization is applied.
        options: of the augmentation.
        smoothing: label smoothing.
        channels_last: whether images get the channels-last memory format.
        device: where batches go.
    """

    def __init__(
        self,
        classifier: Classifier,
        options: AugmentOptions,
        smoothing: float,
        channels_last: bool,
        device: torch.device,
    ) -> None:
        self.classifier, self.smoothing, self.device = classifier, smoothing, device
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        self.augment = BatchAugmentation(classifier.preprocessing.mean, options.merge_geometry)
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._updates: deque[torch.cuda.Event] = deque()
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(device))  # mean and std must have arrived

    def __call__(self, batches: Sequence[ImageBatch]) -> list[StagedBatch]:
        """Return the batches of one update on the device, ready to use in the current stream."""
        if self._stream is None:
            return [self._staged(batch) for batch in batches]
        using = torch.cuda.current_stream(self.device)
        self._limit_queue(using)
        with torch.cuda.stream(self._stream):
            staged = [self._staged(batch) for batch in batches]
        using.wait_stream(self._stream)
        for tensor in (tensor for batch in staged for tensor in batch):
            tensor.record_stream(using)  # or its memory could be reused while an update still reads it
        return staged

    @torch.no_grad()
    def _staged(self, batch: ImageBatch) -> StagedBatch:
        pixels = batch.pixels.to(self.device, non_blocking=True)
        labels = batch.labels.to(self.device, non_blocking=True)
        draws, classes = batch.draws, len(self.classifier.class_names)
        if draws is not None:
            pixels = self.augment(pixels, draws)
        images = self.classifier.normalize(pixels)
        if draws is not None and draws.boxes is not None and draws.weights is not None:
            targets = probabilities(labels, classes, self.smoothing)
            images, targets = mix_batch(images, targets, draws.boxes, draws.weights)
        else:
            targets = soft_targets(labels, classes, self.smoothing)
        return StagedBatch(images.contiguous(memory_format=self.layout), targets, labels)

    def _limit_queue(self, using: torch.cuda.Stream) -> None:
        """Wait until at most `AHEAD` updates are queued; the GPU stays busy."""
        self._updates.append(using.record_event())
        if len(self._updates) > AHEAD:
            self._updates.popleft().synchronize()


def soft_targets(labels: Tensor, classes: int, smoothing: float) -> Tensor:
    """Return labels B unchanged, or as probabilities B,K if they are smoothed."""
    return probabilities(labels, classes, smoothing) if smoothing else labels


def probabilities(labels: Tensor, classes: int, smoothing: float) -> Tensor:
    """Return labels B as probabilities B,K: one-hot, with the fraction `smoothing` spread over all classes."""
    spread = torch.full((len(labels), classes), smoothing / classes, device=labels.device)
    return spread.scatter_add_(1, labels[:, None], torch.full_like(spread[:, :1], 1 - smoothing))
