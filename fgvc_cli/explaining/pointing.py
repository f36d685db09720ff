"""The pointing game (Zhang et al. 2018, Top-Down Neural Attention by Excitation Backprop, IJCV 126, section 5.1).

A map scores a hit if its maximum lies on a true part: here in the box of any part that decides the image's true class,
and, as a second figure, in the box of any part at all. Where several pixels share the maximum (the plateau of a coarse
map, the points that a head selected), the hit is the share of them that lie in a box: what one of them, drawn by lot,
would score on average. The authors count a point within 15 pixels of an object as a hit; the tolerance here is a share
of the crop's side, 0 unless set otherwise.

Boxes are brought from the photograph to the crop that the classifier sees. A part that lies outside of the crop does
not count, and an image without any part left is left out. The chance beside the figures is the share of the crop that
the boxes cover, which is what a point drawn by lot, and so a random map, scores on average.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fgvc_cli.contracts import Preprocessing, Split
from fgvc_cli.contracts.dataset import Box
from fgvc_cli.data.images import read_image
from fgvc_cli.explaining.photograph import crop_box

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
    """Return which pixels of a crop have their centre in a box: bool S,S.

    Args:
        boxes: in pixels of the crop.
        side: S.
        tolerance: how far outside of a box still counts, in sides of the crop.
    """
    mask = np.zeros((side, side), bool)
    centres, margin = np.arange(side) + 0.5, tolerance * side
    for x0, y0, x1, y1 in boxes:
        columns = (centres >= x0 - margin) & (centres < x1 + margin)
        rows = (centres >= y0 - margin) & (centres < y1 + margin)
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
