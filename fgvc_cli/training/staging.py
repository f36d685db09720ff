"""Brings batches to the device and makes of them what the heads train on."""

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
"""Updates that may wait for a GPU when the next batch is sent to it. One keeps it busy; without an end, a program that
runs ahead would fill its memory with batches."""


class StagedBatch(NamedTuple):
    """A batch on the device."""

    images: Tensor
    """B,3,S,S, augmented, normalized and mixed"""
    targets: Tensor
    """B class indices, or B,K probabilities"""
    labels: Tensor
    """int64 B, each image's own class"""


class Staging:
    """Sends batches to the device, augments them there as it was drawn, normalizes and mixes them.

    On a CUDA GPU all this goes into a stream of its own, which waits for no update. The program runs ahead of the GPU:
    when it has handed over an update, it hands over the next batch, which is copied and augmented while the GPU
    computes that update; the next update waits for its batch alone.

    Args:
        classifier: normalizes; its device is where batches go.
        options: of the augmentation.
        smoothing: of the labels.
        channels_last: lay images out as convolutions on a GPU like them.
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
            self._stream.wait_stream(torch.cuda.current_stream(device))  # what normalizes is there by then

    def __call__(self, batches: Sequence[ImageBatch]) -> list[StagedBatch]:
        """Return the batches of one update as the head takes them; the current stream may use them at once."""
        if self._stream is None:
            return [self._staged(batch) for batch in batches]
        using = torch.cuda.current_stream(self.device)
        self._keep_pace(using)
        with torch.cuda.stream(self._stream):
            staged = [self._staged(batch) for batch in batches]
        using.wait_stream(self._stream)
        for tensor in (tensor for batch in staged for tensor in batch):
            tensor.record_stream(using)  # or its memory could go to the next batch while an update still reads it
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

    def _keep_pace(self, using: torch.cuda.Stream) -> None:
        """Wait until no more than `AHEAD` updates wait for the GPU; it has work meanwhile."""
        self._updates.append(using.record_event())
        if len(self._updates) > AHEAD:
            self._updates.popleft().synchronize()


def soft_targets(labels: Tensor, classes: int, smoothing: float) -> Tensor:
    """Return labels B as they are, or as probabilities B,K with a share spread over all classes."""
    return probabilities(labels, classes, smoothing) if smoothing else labels


def probabilities(labels: Tensor, classes: int, smoothing: float) -> Tensor:
    """Return labels B as probabilities B,K: 1 at the label, less a share that is spread over all classes."""
    spread = torch.full((len(labels), classes), smoothing / classes, device=labels.device)
    return spread.scatter_add_(1, labels[:, None], torch.full_like(spread[:, :1], 1 - smoothing))
