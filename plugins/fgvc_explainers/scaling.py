"""Resize saliency maps to the image and scale them to [0, 1]."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def at_image_size(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize maps B,h,w bilinearly to H,W (pixel centers as in image resizing: corners not aligned)."""
    return F.interpolate(maps.unsqueeze(1), size, mode="bilinear", align_corners=False).squeeze(1)


def to_unit_range(maps: Tensor) -> Tensor:
    """Divide non-negative maps B,H,W by their maximum per image; an all-zero map stays zero.

    Nothing is subtracted: 0 keeps its meaning of "no evidence for the class", and proportions are preserved.
    """
    largest = maps.amax(dim=(1, 2), keepdim=True)
    return maps / torch.where(largest > 0, largest, 1)
