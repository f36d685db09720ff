"""From a small map of whatever range to one at the image's size in [0, 1]."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def at_image_size(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize maps B,h,w bilinearly to H,W (pixel centers as in image resizing: corners not aligned)."""
    return F.interpolate(maps.unsqueeze(1), size, mode="bilinear", align_corners=False).squeeze(1)


def to_unit_range(maps: Tensor) -> Tensor:
    """Divide each of the maps B,H,W, none negative, by its largest value; one that is all zero stays so.

    Nothing is subtracted: 0 goes on meaning "no support for the class", and proportions are kept.
    """
    largest = maps.amax(dim=(1, 2), keepdim=True)
    return maps / torch.where(largest > 0, largest, 1)
