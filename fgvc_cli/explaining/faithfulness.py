"""Faithfulness of saliency maps: deletion, insertion, average drop and the pointing game."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fgvc_cli.contracts import Preprocessing, Split
from fgvc_cli.contracts.dataset import Box
from fgvc_cli.data.images import read_image
from fgvc_cli.explaining.masking import fill_image
from fgvc_cli.explaining.overlays import crop_box

Probability = Callable[[Tensor], Tensor]
"""Maps uint8 pixels B,3,S,S to the probability of the explained class, float32 B."""


@dataclass(frozen=True)
class CurveEnds:
    """The end points of the deletion and insertion curves, shared by all maps of a batch.

    Attributes:
        pixels: uint8 B,3,S,S, the images.
        mean, blurred: uint8 B,3,S,S, the images filled with their mean color, and blurred.
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
        """Compute them for images with known probabilities."""
        mean, blurred = fill_image(pixels, "mean"), fill_image(pixels, "blur")
        return cls(pixels, mean, blurred, p, probability(mean), probability(blurred))


def deletion_auc(order: Tensor, ends: CurveEnds, probability: Probability, steps: int) -> Tensor:
    """Return the area under the deletion curve, float32 B in [0, 1].

    Pixels are replaced by the mean color in the order of saliency.

    Args:
        order: int64 B,S,S, see `saliency_order`.
        ends: of the images.
        probability: of the explained class.
        steps: number of steps, each of which replaces an equal part of the pixels.

    Reference: Petsiuk et al. (2018), RISE, https://arxiv.org/abs/1806.07421.
    """
    return _area(order, (ends.pixels, ends.p), (ends.mean, ends.p_mean), probability, steps)


def insertion_auc(order: Tensor, ends: CurveEnds, probability: Probability, steps: int) -> Tensor:
    """Return the area under the insertion curve, float32 B in [0, 1].

    Pixels of the blurred image are restored in the order of saliency; arguments as for `deletion_auc`.
    """
    return _area(order, (ends.blurred, ends.p_blurred), (ends.pixels, ends.p), probability, steps)


def average_drop(p: Tensor, p_weighted: Tensor) -> Tensor:
    """Return the average drop max(0, Y - O) / Y of each image, float32 B in [0, 1].

    Args:
        p: Y, the probability for the images.
        p_weighted: O, the probability for the normalized images times their maps.

    Reference: Chattopadhay et al. (2018), Grad-CAM++, https://arxiv.org/abs/1710.11063.
    """
    return (p - p_weighted).clamp(min=0) / p.clamp(min=torch.finfo(p.dtype).tiny)


def _area(
    order: Tensor,
    first: tuple[Tensor, Tensor],
    last: tuple[Tensor, Tensor],
    probability: Probability,
    steps: int,
) -> Tensor:
    """Integrate with the trapezoidal rule while pixels of the first images are replaced by those of the last."""
    ranks, pixels = order[:, None], order.shape[1] * order.shape[2]  # (B, 1, S, S)
    counts = [round(pixels * step / steps) for step in range(steps + 1)]
    area = torch.zeros_like(first[1])
    before = first[1]
    for count, previous in zip(counts[1:], counts, strict=False):
        after = last[1] if count == pixels else probability(torch.where(ranks < count, last[0], first[0]))
        area += (before + after) * ((count - previous) / (2 * pixels))
        before = after
    return area


SAME_VALUE = 1e-6
"""Tolerance for ties with the maximum of a map: interpolation rounds."""

CropBox = tuple[float, float, float, float]


def box_on_crop(box: Box, size: tuple[int, int], preprocessing: Preprocessing) -> CropBox | None:
    """Convert a box (x0, y0, x1, y1) to pixels of the crop.

    Args:
        box: in pixels of the photograph; x1 and y1 are exclusive.
        size: width and height of the photograph.
        preprocessing: defines the crop.

    Returns:
        The box in pixels of the crop, not clipped to it; None if it lies outside of the crop.
    """
    left, top, right, bottom = crop_box(size, preprocessing)
    side = preprocessing.image_size
    across, down = side / (right - left), side / (bottom - top)
    x0, y0, x1, y1 = box
    on_crop = (x0 - left) * across, (y0 - top) * down, (x1 - left) * across, (y1 - top) * down
    inside = on_crop[0] < side and on_crop[1] < side and on_crop[2] > 0 and on_crop[3] > 0
    return on_crop if inside else None


def mask_of_boxes(boxes: Sequence[CropBox], side: int, tolerance: float) -> np.ndarray:
    """Return which pixels of a crop have their center within a box: bool S,S.

    Args:
        boxes: in pixels of the crop.
        side: S.
        tolerance: margin around each box, in sides of the crop.
    """
    mask = np.zeros((side, side), bool)
    centers, margin = np.arange(side) + 0.5, tolerance * side
    for x0, y0, x1, y1 in boxes:
        columns = (centers >= x0 - margin) & (centers < x1 + margin)
        rows = (centers >= y0 - margin) & (centers < y1 + margin)
        mask |= rows[:, None] & columns
    return mask


def pointing_hits(maps: Tensor, masks: Tensor) -> Tensor:
    """Score the pointing game: the fraction of the maxima of maps B,S,S within masks, bool B,S,S: float32 B in [0, 1].

    A map that is zero everywhere scores 0.

    Reference: Zhang et al. (2016), Top-down Neural Attention by Excitation Backprop, https://arxiv.org/abs/1608.00507.
    """
    highest = maps.amax(dim=(1, 2), keepdim=True)
    pointed = (maps >= highest - SAME_VALUE) & (highest > 0)
    return (pointed & masks).sum(dim=(1, 2)) / pointed.sum(dim=(1, 2)).clamp(min=1)


@dataclass(frozen=True)
class PartMasks:
    """Masks of the true parts of a batch, bool B,S,S: those that decide the true class, and any."""

    deciding: Tensor
    any: Tensor


@dataclass(frozen=True)
class PartLocations:
    """Where the parts of a split's images are, and which of them decide the class.

    Attributes:
        split: its images have parts.
        deciding: names of the parts that decide each class, by class name.
        class_names: of the split's labels.
        preprocessing: defines the crops.
        tolerance: see `mask_of_boxes`.
    """

    split: Split
    deciding: Mapping[str, Collection[str]]
    class_names: Sequence[str]
    preprocessing: Preprocessing
    tolerance: float = 0.0

    def masks(self, indices: Sequence[int]) -> PartMasks:
        """Return the parts of the images at some positions of the split, on the CPU."""
        pairs = [self._masks(index) for index in indices]
        deciding, everything = zip(*pairs, strict=True) if pairs else ((), ())
        return PartMasks(self._stacked(deciding), self._stacked(everything))

    def _masks(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        assert self.split.parts is not None
        image = self.split.images[index]
        size = (image.shape[1], image.shape[0]) if isinstance(image, np.ndarray) else read_image(image).size
        decide = self.deciding.get(self.class_names[self.split.labels[index]], ())
        boxes = {name: box_on_crop(box, size, self.preprocessing) for name, box in self.split.parts[index].items()}
        seen = {name: box for name, box in boxes.items() if box is not None}
        side = self.preprocessing.image_size
        deciding = [box for name, box in seen.items() if name in decide]
        return mask_of_boxes(deciding, side, self.tolerance), mask_of_boxes(list(seen.values()), side, self.tolerance)

    def _stacked(self, masks: Sequence[np.ndarray]) -> Tensor:
        side = self.preprocessing.image_size
        return torch.from_numpy(np.stack(masks)) if masks else torch.empty(0, side, side, dtype=torch.bool)
