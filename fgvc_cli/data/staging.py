"""Move batches to the device; augment, normalize and mix them there; turn labels into targets."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from fgvc_cli.config.train_options import AugmentOptions
from fgvc_cli.contracts import Classifier
from fgvc_cli.data.batch_augmentation import geometry, pixel_ops
from fgvc_cli.data.batch_augmentation.draws import BatchOp, Computation, Draws, Kind, OpGroup, to_device
from fgvc_cli.data.batch_augmentation.op_groups import op_groups
from fgvc_cli.data.loading import ImageBatch


class BatchAugmentation:
    """Augments batches of pixels on their device.

    Args:
        mean: color of erased boxes, per channel in [0, 1].
        merge_geometry: apply an image's consecutive geometric operations as one bilinear resampling; otherwise each on
            its own, to the nearest pixel, as torchvision does.
    """

    def __init__(self, mean: Sequence[float], merge_geometry: bool = False) -> None:
        red, green, blue = (int(255 * channel) for channel in mean)
        self.merge_geometry = merge_geometry
        self._computations: dict[Kind, Callable[[OpGroup], Computation]] = {
            Kind.FLIP: lambda _: (geometry.flip, ()),
            Kind.NEAREST: lambda group: (geometry.resample_nearest, geometry.matrices(group)),
            Kind.BILINEAR: lambda group: (geometry.resample_bilinear, geometry.matrices(group)),
            Kind.LEVELS: pixel_ops.levels_op,
            Kind.BLEND: pixel_ops.blend_op,
            Kind.SHARPNESS: pixel_ops.sharpness_op,
            Kind.BLUR: pixel_ops.blur_op,
            Kind.ERASE: partial(pixel_ops.erase_op, color=(red, green, blue)),
        }

    @torch.no_grad()
    def __call__(self, pixels: Tensor, draws: Draws) -> Tensor:
        """Return new pixels, uint8 B,3,S,S, on the same device; mixing is left to `mix_batch`."""
        ops = []
        for group in op_groups(draws, self.merge_geometry):
            function, parameters = self._computations[group.kind](group)
            ops.append(BatchOp(function, torch.from_numpy(group.images), parameters))
        if not ops:
            return pixels
        pixels = pixels.clone()
        for op in to_device(ops, pixels.device):
            pixels.index_copy_(0, op.images, op.function(pixels.index_select(0, op.images), *op.parameters))
        return pixels


@torch.no_grad()
def mix_batch(images: Tensor, targets: Tensor, boxes: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Mix each image of a batch, and its target, with the one before it.

    Args:
        images: B,3,S,S, normalized.
        targets: B,K probabilities.
        boxes: int64 B,4 on the CPU (left, top, right, bottom): taken from the other image; empty for mixup.
        weights: float64 B on the CPU: weight of the image itself.
    """
    cut = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    own = torch.where(cut, 1.0, weights)  # outside of the box CutMix leaves an image unchanged
    factors = torch.stack([own, 1 - own, weights, 1 - weights]).to(images.dtype)
    if images.device.type == "cuda":
        factors, boxes = factors.pin_memory(), boxes.pin_memory()
    factors, boxes = factors.to(images.device, non_blocking=True), boxes.to(images.device, non_blocking=True)
    inside = pixel_ops.box_mask(boxes, images.shape[3])
    of_own, of_other = factors[:2, :, None, None, None]
    pixels = images.roll(1, 0) * of_other.where(~inside, 1) + images * of_own.where(~inside, 0)
    label_own, label_other = factors[2:, :, None].to(targets.dtype)
    return pixels, targets.roll(1, 0) * label_other + targets * label_own


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
