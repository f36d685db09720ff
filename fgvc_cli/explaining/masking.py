"""Mask the most salient pixels and predict again: the occlusion test, batched on the device."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from fgvc_cli.devices import autocast
from fgvc_cli.errors import UsageError
from fgvc_cli.explaining.explainers import NamedExplainer, is_in_range
from fgvc_cli.scoring.model import ReadyClassifier

Fill = Literal["mean", "blur", "gray"]

MID_GRAY = 128
FLAT = 1e-5
"""Differences within a flat map, as a fraction of its maximum: interpolation rounds."""
BLUR_SIGMA = 0.1
"""Standard deviation of the blur as a fraction of the image side; no detail that distinguishes species survives it."""


@dataclass(frozen=True)
class Masking:
    """How much of an image an occlusion step masks, and with what.

    Attributes:
        fill: "mean" (the mean color of the image), "blur" (a strong Gaussian blur of the image) or "gray" (128).
        area: fraction of the image to mask, in (0, 1]: the most salient pixels.
        threshold: if given, mask every pixel with saliency at or above it instead, in (0, 1].

    Raises:
        UsageError: `fill` is unknown, or `area` or `threshold` is out of range.
    """

    fill: Fill = "mean"
    area: float = 0.2
    threshold: float | None = None

    def __post_init__(self) -> None:
        if self.fill not in get_args(Fill):
            raise UsageError(f"`cover={self.fill}`: use {', '.join(get_args(Fill))}")
        for name, value in (("cover_area", self.area), ("cover_threshold", self.threshold)):
            if value is not None and not 0 < value <= 1:
                raise UsageError(f"`{name}={value:g}`: must be above 0 and at most 1")


def saliency_order(maps: Tensor) -> Tensor:
    """Rank the pixels of each map: int64 B,S,S, 0 for the most salient pixel of an image.

    Equal pixels rank in row-major order on every device.

    Args:
        maps: B,S,S; NaN counts as 0.
    """
    flat = torch.nan_to_num(maps, nan=0.0).flatten(1)
    order = torch.sort(flat, dim=1, descending=True, stable=True).indices
    ranks = torch.arange(flat.shape[1], device=maps.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, ranks).view_as(maps)


def most_salient(maps: Tensor, masking: Masking, masked: Tensor | None = None) -> Tensor:
    """Select the pixels to mask: bool B,S,S.

    By area these are exactly `round(area * S * S)` pixels of each image, or fewer if fewer have a saliency above 0.
    Ties are broken as in `saliency_order`.

    Args:
        maps: B,S,S in [0, 1].
        masking: area or threshold.
        masked: bool B,S,S, pixels that are already masked and cannot be selected again.
    """
    free = maps if masked is None else maps.masked_fill(masked, 0.0)
    if masking.threshold is not None:
        return free >= masking.threshold
    wanted = round(masking.area * free[0].numel()) if len(free) else 0
    return (saliency_order(free) < wanted) & (free > 0)


def fill_image(pixels: Tensor, fill: str) -> Tensor:
    """Return each image fully masked: uint8 B,3,S,S.

    Args:
        pixels: uint8 B,3,S,S.
        fill: see `Masking`.
    """
    if fill == "gray":
        return torch.full_like(pixels, MID_GRAY)
    if fill == "mean":
        # integers, so that the mean is the same on every device
        total = pixels.sum(dim=(2, 3), dtype=torch.int64, keepdim=True)
        count = pixels.shape[2] * pixels.shape[3]
        return ((2 * total + count) // (2 * count)).to(torch.uint8).expand_as(pixels)
    if fill == "blur":
        return _blurred(pixels)
    raise ValueError(f"unknown fill {fill!r}")


def mask_pixels(pixels: Tensor, masks: Tensor, fill: str) -> Tensor:
    """Replace the masked pixels: uint8 B,3,S,S.

    Args:
        pixels: uint8 B,3,S,S, unmasked; the fill is computed from them.
        masks: bool B,S,S.
        fill: see `Masking`.
    """
    return torch.where(masks[:, None], fill_image(pixels, fill), pixels)


def _blurred(pixels: Tensor) -> Tensor:
    """Blur with a separable Gaussian filter and reflected edges."""
    side = pixels.shape[-1]
    sigma = BLUR_SIGMA * side
    radius = max(1, math.ceil(3 * sigma))
    offsets = torch.arange(-radius, radius + 1, device=pixels.device, dtype=torch.float32)
    weights = torch.exp(-(offsets**2) / (2 * sigma**2))
    weights = (weights / weights.sum()).expand(3, 1, 1, -1)  # one filter per channel
    with torch.autocast(pixels.device.type, enabled=False):
        padded = F.pad(pixels.float(), (radius, radius, radius, radius), mode="reflect")
        across = F.conv2d(padded, weights, groups=3)
        return F.conv2d(across, weights.mT, groups=3).round().clamp(0, 255).to(torch.uint8)


@dataclass(frozen=True)
class StepBatch:
    """One occlusion step of a batch of images, all tensors on the CPU.

    Attributes:
        pixels: uint8 B,3,S,S, the (masked) images.
        probabilities: float32 B,K.
        targets: int64 B, the classes the maps explain.
        maps: float32 B,S,S in [0, 1].
        masks: bool B,S,S, all pixels masked so far.
    """

    pixels: Tensor
    probabilities: Tensor
    targets: Tensor
    maps: Tensor
    masks: Tensor


class ProgressiveMasking:
    """Images that are masked step by step.

    Attributes:
        masked: uint8 B,3,S,S, the images in their present state.
        masks: bool B,S,S, the pixels masked so far.

    Args:
        pixels: uint8 B,3,S,S, the unmasked images; the fill is computed from them.
        masking: how much each step masks, and with what.
    """

    def __init__(self, pixels: Tensor, masking: Masking) -> None:
        self.pixels, self.masking = pixels, masking
        self.masked = pixels
        self.masks = torch.zeros_like(pixels[:, 0], dtype=torch.bool)

    def step(self, maps: Tensor) -> None:
        """Mask the most salient pixels of maps B,S,S, in addition to those masked already."""
        self.masks = self.masks | most_salient(maps, self.masking, self.masks)
        self.masked = mask_pixels(self.pixels, self.masks, self.masking.fill)


def occlusion_steps(
    explainer: NamedExplainer,
    ready: ReadyClassifier,
    pixels: Tensor,
    targets: Tensor | None,
    masking: Masking,
    steps: int,
) -> Iterator[StepBatch]:
    """Predict and explain a batch, unmasked first, then with its most salient pixels masked step by step.

    Args:
        explainer: computes the saliency maps.
        ready: the classifier.
        pixels: uint8 B,3,S,S.
        targets: the class to explain for each image (int64 B); None: the class predicted at each step.
        masking: how much each step masks: the most salient pixels of the previous step's map.
        steps: number of steps after the first, unmasked one.

    Yields:
        `steps` + 1 batches.

    Raises:
        FgvcError: memory runs out, or a map has values outside of [0, 1].
    """
    device = ready.classifier.device
    wanted = None if targets is None else targets.to(device, non_blocking=True)
    state = ProgressiveMasking(pixels.to(device, non_blocking=True), masking)
    for step in range(steps + 1):
        with ready.memory_explained():
            probabilities = class_probabilities(ready, state.masked)
            explained = probabilities.argmax(dim=1) if wanted is None else wanted
            maps = saliency_maps(explainer, ready, state.masked, explained)
            batch = StepBatch(*(t.cpu() for t in (state.masked, probabilities, explained, maps, state.masks)))
            if (~is_in_range(batch.maps) & batch.probabilities.isfinite().all(dim=1)).any():
                raise explainer.out_of_range()
            if step < steps:
                state.step(maps)
        yield batch


def class_probabilities(ready: ReadyClassifier, pixels: Tensor) -> Tensor:
    """Predict: float32 B,K on the device, for uint8 pixels B,3,S,S."""
    return _probabilities(ready, ready.classifier.normalize(pixels))


def weighted_probabilities(ready: ReadyClassifier, pixels: Tensor, maps: Tensor) -> Tensor:
    """Predict for the normalized images times their maps: float32 B,K on the device.

    Args:
        pixels: uint8 B,3,S,S.
        maps: B,S,S in [0, 1].
    """
    return _probabilities(ready, ready.classifier.normalize(pixels) * maps[:, None])


@torch.no_grad()
def _probabilities(ready: ReadyClassifier, images: Tensor) -> Tensor:
    with autocast(ready.classifier.device, ready.precision):
        scores = ready.classifier.scores(images)
    return scores.float().softmax(dim=1)


def saliency_maps(explainer: NamedExplainer, ready: ReadyClassifier, pixels: Tensor, targets: Tensor) -> Tensor:
    """Explain: float32 maps B,S,S on the device, for uint8 pixels B,3,S,S and B class indices.

    A flat map, such as one of a single point, is set to 0: the order of its pixels is rounding noise.
    """
    classifier = ready.classifier
    with autocast(classifier.device, ready.precision):
        maps = explainer.explain(classifier, classifier.normalize(pixels), targets).detach().float()
    return torch.where(is_flat(maps)[:, None, None], 0.0, maps)


def is_flat(maps: Tensor) -> Tensor:
    """Return whether the values of each map B,S,S are the same up to rounding: bool B. NaN is not."""
    highest, lowest = maps.amax(dim=(1, 2)), maps.amin(dim=(1, 2))
    return highest - lowest <= FLAT * highest.abs()
