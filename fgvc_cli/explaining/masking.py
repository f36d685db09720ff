"""Mask the most salient pixels: the occlusion test, batched on the device."""

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
from fgvc_cli.scoring.scores import scores_of

Fill = Literal["mean", "blur", "gray"]

MID_GRAY = 128
BLUR_SIGMA = 0.1
"""Standard deviation of the blur, in sides of the image: nothing that tells two species apart survives it."""


@dataclass(frozen=True)
class Cover:
    """How much of an image is covered, and with what.

    Attributes:
        fill: "mean" is the image's own mean color, "blur" a strong Gaussian blur of the image, "gray" mid gray (128).
        area: share of the image that is covered: its most marked pixels.
        threshold: or, if given, every pixel that is marked at least so much; maps are in [0, 1].
    """

    fill: Fill = "mean"
    area: float = 0.2
    threshold: float | None = None

    def __post_init__(self) -> None:
        if self.fill not in get_args(Fill):
            raise UsageError(f"--cover {self.fill}: use {', '.join(get_args(Fill))}.")
        if not 0 < self.area <= 1:
            raise UsageError(f"--cover-area {self.area:g}: it must be above 0 and at most 1, a share of the image.")
        if self.threshold is not None and not 0 < self.threshold <= 1:
            raise UsageError(f"--cover-threshold {self.threshold:g}: it must be above 0 and at most 1.")


def saliency_order(maps: Tensor) -> Tensor:
    """Return each pixel's place in the order of saliency: int64 B,S,S, 0 for the most marked pixel of an image.

    Pixels of equal value come in the order of reading, left to right and top to bottom, on every device.

    Args:
        maps: B,S,S; what is not a number counts as not marked.
    """
    flat = torch.nan_to_num(maps, nan=0.0).flatten(1)
    order = torch.sort(flat, dim=1, descending=True, stable=True).indices
    places = torch.arange(flat.shape[1], device=maps.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places).view_as(maps)


def most_marked(maps: Tensor, cover: Cover, taken: Tensor | None = None) -> Tensor:
    """Return which pixels a covering takes: bool B,S,S.

    By area that is exactly `round(area * S * S)` pixels of each image, or fewer where fewer are marked at all: a pixel
    of value 0 is never taken. Equal pixels are taken as in `saliency_order`.

    Args:
        maps: B,S,S in [0, 1].
        cover: how much.
        taken: bool B,S,S: pixels that are covered already, and so are not to be had.
    """
    free = maps if taken is None else maps.masked_fill(taken, 0.0)
    if cover.threshold is not None:
        return free >= cover.threshold
    wanted = round(cover.area * free[0].numel()) if len(free) else 0
    return (saliency_order(free) < wanted) & (free > 0)


def filling(pixels: Tensor, fill: str) -> Tensor:
    """Return what covers each image: uint8 B,3,S,S.

    Args:
        pixels: uint8 B,3,S,S.
        fill: as in `Cover`.
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
    raise ValueError(f"{fill!r} is no filling")


def cover_pixels(pixels: Tensor, masks: Tensor, fill: str) -> Tensor:
    """Return the images with the masked pixels covered: uint8 B,3,S,S.

    Args:
        pixels: uint8 B,3,S,S; the filling is made of these.
        masks: bool B,S,S.
        fill: as in `Cover`.
    """
    return torch.where(masks[:, None], filling(pixels, fill), pixels)


def _blurred(pixels: Tensor) -> Tensor:
    """Blur along rows and columns in turn; at its edges an image is mirrored."""
    side = pixels.shape[-1]
    sigma = BLUR_SIGMA * side
    radius = max(1, math.ceil(3 * sigma))
    offsets = torch.arange(-radius, radius + 1, device=pixels.device, dtype=torch.float32)
    weights = torch.exp(-(offsets**2) / (2 * sigma**2))
    weights = (weights / weights.sum()).expand(3, 1, 1, -1)  # one filter a channel
    with torch.autocast(pixels.device.type, enabled=False):
        padded = F.pad(pixels.float(), (radius, radius, radius, radius), mode="reflect")
        across = F.conv2d(padded, weights, groups=3)
        return F.conv2d(across, weights.mT, groups=3).round().clamp(0, 255).to(torch.uint8)


@dataclass(frozen=True)
class Look:
    """One look of a classifier at a batch of images, all tensors on the CPU.

    Attributes:
        pixels: uint8 B,3,S,S as the classifier saw them.
        probabilities: float32 B,K.
        targets: int64 B, the class that each map explains.
        maps: float32 B,S,S in [0, 1].
        covered: bool B,S,S, everything that is covered in this look.
    """

    pixels: Tensor
    probabilities: Tensor
    targets: Tensor
    maps: Tensor
    covered: Tensor


class Occlusion:
    """Images of which more and more is covered.

    Attributes:
        seen: uint8 B,3,S,S, the images as they are now.
        covered: bool B,S,S, what of them is covered.

    Args:
        pixels: uint8 B,3,S,S, the images as they are; the filling is made of these.
        cover: how much is covered each time, and with what.
    """

    def __init__(self, pixels: Tensor, cover: Cover) -> None:
        self.pixels, self.cover = pixels, cover
        self.seen = pixels
        self.covered = torch.zeros_like(pixels[:, 0], dtype=torch.bool)

    def cover_most_marked(self, maps: Tensor) -> None:
        """Cover what maps B,S,S mark most, on top of what is covered already."""
        self.covered = self.covered | most_marked(maps, self.cover, self.covered)
        self.seen = cover_pixels(self.pixels, self.covered, self.cover.fill)


def looks(
    explainer: NamedExplainer,
    ready: ReadyClassifier,
    pixels: Tensor,
    targets: Tensor | None,
    cover: Cover,
    steps: int,
) -> Iterator[Look]:
    """Give a classifier's looks at a batch: at the images as they are, then with more and more of them covered.

    Args:
        explainer: marks the pixels.
        ready: the classifier.
        pixels: uint8 B,3,S,S.
        targets: the class to explain of each image (int64 B); None: the one that is predicted in that very look.
        cover: how much is covered each time, and with what: the most marked pixels of the look before, on top of what
            is covered already.
        steps: looks after the first.

    Yields:
        `steps` + 1 looks, on the CPU.

    Raises:
        FgvcError: memory runs out, or a map has values that the contract does not allow.
    """
    device = ready.classifier.device
    wanted = None if targets is None else targets.to(device, non_blocking=True)
    occlusion = Occlusion(pixels.to(device, non_blocking=True), cover)
    for step in range(steps + 1):
        with ready.memory_explained():
            probabilities = class_probabilities(ready, occlusion.seen)
            explained = probabilities.argmax(dim=1) if wanted is None else wanted
            maps = explained_maps(explainer, ready, occlusion.seen, explained)
            look = Look(*(t.cpu() for t in (occlusion.seen, probabilities, explained, maps, occlusion.covered)))
            if (~is_in_range(look.maps) & look.probabilities.isfinite().all(dim=1)).any():
                raise explainer.out_of_range()
            if step < steps:
                occlusion.cover_most_marked(maps)
        yield look


@torch.no_grad()
def class_probabilities(ready: ReadyClassifier, pixels: Tensor) -> Tensor:
    """Return float32 B,K on the device, for uint8 pixels B,3,S,S."""
    return scores_of(ready.classifier, pixels, ready.precision).softmax(dim=1)


def explained_maps(explainer: NamedExplainer, ready: ReadyClassifier, pixels: Tensor, targets: Tensor) -> Tensor:
    """Return float32 maps B,S,S on the device, for uint8 pixels B,3,S,S and B class indices."""
    classifier = ready.classifier
    with autocast(classifier.device, ready.precision):
        return explainer.explain(classifier, classifier.normalize(pixels), targets).detach().float()


@torch.no_grad()
def marked_probabilities(ready: ReadyClassifier, pixels: Tensor, maps: Tensor) -> Tensor:
    """Return float32 B,K on the device, for the normalized images times their maps (uint8 B,3,S,S and B,S,S)."""
    classifier = ready.classifier
    images = classifier.normalize(pixels) * maps[:, None]
    with autocast(classifier.device, ready.precision):
        scores = classifier.scores(images)
    return scores.float().softmax(dim=1)
