"""Faithfulness of saliency maps: deletion, insertion, average drop and the pointing game."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fgvc_cli.contracts import Preprocessing, Split
from fgvc_cli.contracts.dataset import Box
from fgvc_cli.data.images import read_image
from fgvc_cli.explaining.masking import filling
from fgvc_cli.explaining.photograph import crop_box

Probability = Callable[[Tensor], Tensor]
"""From uint8 pixels B,3,S,S to p, float32 B."""


@dataclass(frozen=True)
class CurveEnds:
    """What deletion and insertion begin and end with, the same for every map of a batch.

    Attributes:
        pixels: uint8 B,3,S,S, the images.
        mean, blurred: the images filled with their mean color, and blurred.
        p, p_mean, p_blurred: float32 B, the probabilities of the three.
    """

    pixels: Tensor
    mean: Tensor
    blurred: Tensor
    p: Tensor
    p_mean: Tensor
    p_blurred: Tensor

    @classmethod
    def of(cls, pixels: Tensor, p: Tensor, probability: Probability) -> CurveEnds:
        """Make them for images whose probabilities are known."""
        mean, blurred = filling(pixels, "mean"), filling(pixels, "blur")
        return cls(pixels, mean, blurred, p, probability(mean), probability(blurred))


def deletion_auc(order: Tensor, ends: CurveEnds, probability: Probability, steps: int) -> Tensor:
    """Return the area under the deletion curve, float32 B in [0, 1].

    Args:
        order: int64 B,S,S, see `saliency_order`.
        ends: of the images.
        probability: of the explained class.
        steps: equal parts that the pixels are replaced in; the curve has one point more.
    """
    return _area(order, (ends.pixels, ends.p), (ends.mean, ends.p_mean), probability, steps)


def insertion_auc(order: Tensor, ends: CurveEnds, probability: Probability, steps: int) -> Tensor:
    """Return the area under the insertion curve, float32 B in [0, 1]; arguments as for `deletion_auc`."""
    return _area(order, (ends.blurred, ends.p_blurred), (ends.pixels, ends.p), probability, steps)


def curve_passes(steps: int) -> int:
    """Return how many forward passes one curve takes beyond its ends."""
    return steps - 1


def average_drop(p: Tensor, p_of_marked: Tensor) -> Tensor:
    """Return max(0, Y - O) / Y, float32 B in [0, 1].

    Args:
        p: Y, of the images.
        p_of_marked: O, of the normalized images times their maps.
    """
    return (p - p_of_marked).clamp(min=0) / p.clamp(min=torch.finfo(p.dtype).tiny)


def _area(
    order: Tensor,
    first: tuple[Tensor, Tensor],
    last: tuple[Tensor, Tensor],
    probability: Probability,
    steps: int,
) -> Tensor:
    """Replace pixels of the first images by those of the last in the order of saliency; the trapezoid rule."""
    places, pixels = order[:, None], order.shape[1] * order.shape[2]  # (B, 1, S, S)
    counts = [round(pixels * step / steps) for step in range(steps + 1)]
    area = torch.zeros_like(first[1])
    before = first[1]
    for count, previous in zip(counts[1:], counts, strict=False):
        after = last[1] if count == pixels else probability(torch.where(places < count, last[0], first[0]))
        area += (before + after) * ((count - previous) / (2 * pixels))
        before = after
    return area


SAME_VALUE = 1e-6
"""Values of a map that lie so near to its maximum are the maximum: interpolation rounds."""

CropBox = tuple[float, float, float, float]


def box_on_crop(box: Box, size: tuple[int, int], preprocessing: Preprocessing) -> CropBox | None:
    """Bring a box (x0, y0, x1, y1) of a photograph to the crop.

    Args:
        box: in pixels of the photograph; x1 and y1 are just outside of it.
        size: width and height of the photograph.
        preprocessing: makes the crop.

    Returns:
        The box in pixels of the crop, not cut off at the crop's edges; None if it lies outside of the crop.
    """
    left, top, right, bottom = crop_box(size, preprocessing)
    side = preprocessing.image_size
    across, down = side / (right - left), side / (bottom - top)
    x0, y0, x1, y1 = box
    on_crop = (x0 - left) * across, (y0 - top) * down, (x1 - left) * across, (y1 - top) * down
    inside = on_crop[0] < side and on_crop[1] < side and on_crop[2] > 0 and on_crop[3] > 0
    return on_crop if inside else None


def mask_of(boxes: Sequence[CropBox], side: int, tolerance: float) -> np.ndarray:
    """Return which pixels of a crop have their center in a box: bool S,S.

    Args:
        boxes: in pixels of the crop.
        side: S.
        tolerance: how far outside of a box still counts, in sides of the crop.
    """
    mask = np.zeros((side, side), bool)
    centers, margin = np.arange(side) + 0.5, tolerance * side
    for x0, y0, x1, y1 in boxes:
        columns = (centers >= x0 - margin) & (centers < x1 + margin)
        rows = (centers >= y0 - margin) & (centers < y1 + margin)
        mask |= rows[:, None] & columns
    return mask


def hits(maps: Tensor, masks: Tensor) -> Tensor:
    """Return the hit of each map, float32 B in [0, 1]; a map that marks nothing points nowhere and scores 0.

    Args:
        maps: B,S,S in [0, 1].
        masks: bool B,S,S, what counts.
    """
    highest = maps.amax(dim=(1, 2), keepdim=True)
    pointed = (maps >= highest - SAME_VALUE) & (highest > 0)
    return (pointed & masks).sum(dim=(1, 2)) / pointed.sum(dim=(1, 2)).clamp(min=1)


@dataclass(frozen=True)
class Parts:
    """The true parts of a batch, on its crops.

    Attributes:
        deciding: bool B,S,S, the parts that decide the true class.
        any: bool B,S,S, all parts.
    """

    deciding: Tensor
    any: Tensor


@dataclass(frozen=True)
class KnownParts:
    """Where the parts of a split's images are, and which decide.

    Attributes:
        split: has parts.
        deciding: the parts that decide each class, by its name.
        class_names: what the split's labels index.
        preprocessing: makes the crops.
        tolerance: see `mask_of`.
    """

    split: Split
    deciding: Mapping[str, Collection[str]]
    class_names: Sequence[str]
    preprocessing: Preprocessing
    tolerance: float = 0.0

    def of(self, indices: Sequence[int]) -> Parts:
        """Return the parts of the images at these positions of the split, on the CPU."""
        pairs = [self._masks(index) for index in indices]
        deciding, everything = zip(*pairs, strict=True) if pairs else ((), ())
        return Parts(self._stacked(deciding), self._stacked(everything))

    def _masks(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        assert self.split.parts is not None
        size = _size(self.split.images[index])
        decide = self.deciding.get(self.class_names[self.split.labels[index]], ())
        boxes = {name: box_on_crop(box, size, self.preprocessing) for name, box in self.split.parts[index].items()}
        seen = {name: box for name, box in boxes.items() if box is not None}
        side = self.preprocessing.image_size
        deciding = [box for name, box in seen.items() if name in decide]
        return mask_of(deciding, side, self.tolerance), mask_of(list(seen.values()), side, self.tolerance)

    def _stacked(self, masks: Sequence[np.ndarray]) -> Tensor:
        side = self.preprocessing.image_size
        return torch.from_numpy(np.stack(masks)) if masks else torch.empty(0, side, side, dtype=torch.bool)


def _size(image: Path | np.ndarray) -> tuple[int, int]:
    """Return width and height of a photograph as it stands upright."""
    return (image.shape[1], image.shape[0]) if isinstance(image, np.ndarray) else read_image(image).size
