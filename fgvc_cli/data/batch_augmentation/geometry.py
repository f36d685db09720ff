"""Flips and affine maps of many images at once, each by its own matrix."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fgvc_cli.data.batch_augmentation.rounding import multiply_add
from fgvc_cli.data.batch_augmentation.steps import Step
from fgvc_cli.data.batch_augmentation.turns import Turn


def flip_step(turn: Turn) -> Step:
    """Return the step of a turn of flips."""
    return Step(flipped, torch.from_numpy(turn.images))


def nearest_step(turn: Turn) -> Step:
    """Return the step of a turn of affine maps."""
    return Step(nearest, torch.from_numpy(turn.images), (_matrices(turn),))


def bilinear_step(turn: Turn) -> Step:
    """Return the step of a turn of merged affine maps."""
    return Step(bilinear, torch.from_numpy(turn.images), (_matrices(turn),))


def _matrices(turn: Turn) -> Tensor:
    return torch.from_numpy(turn.parameters.astype(np.float32)).view(-1, 2, 3)


def flipped(pixels: Tensor) -> Tensor:
    """Return images N,3,S,S turned left to right."""
    return pixels.flip(3)


def nearest(pixels: Tensor, matrices: Tensor) -> Tensor:
    """Resample images to the nearest pixel; what comes from outside is black.

    The same source pixels as `torch.nn.functional.grid_sample` on torchvision's grid finds on a CPU, half-way cases
    of a map along one axis included, on every device. (Those of a map along both, which no policy draws, torchvision
    finds otherwise on another processor.)

    Args:
        pixels: uint8 N,3,S,S.
        matrices: float32 N,2,3, see `matrices`.
    """
    count, channels, side, _ = pixels.shape
    source = ((_grid(matrices, side) + 1) * (side / 2) - 0.5).round_()  # N,2,S,S: x, y
    within = source.clamp(0, side - 1)
    inside = (source == within).all(dim=1, keepdim=True)
    index = within[:, 1].long() * side + within[:, 0].long()
    gathered = pixels.flatten(2).gather(2, index.view(count, 1, -1).expand(-1, channels, -1)).view_as(pixels)
    return gathered * inside


def bilinear(pixels: Tensor, matrices: Tensor) -> Tensor:
    """Resample images bilinearly, fading to black at what comes from outside.

    Args:
        pixels: uint8 N,3,S,S.
        matrices: float32 N,2,3, see `matrices`.
    """
    grid = _grid(matrices, pixels.shape[3]).permute(0, 2, 3, 1)
    sampled = F.grid_sample(pixels.float(), grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return sampled.round_().to(torch.uint8)


def _grid(matrices: Tensor, side: int) -> Tensor:
    """Return where each output pixel looks: N,2,S,S (x, y), from -1 to 1 over the image."""
    # A GPU divides by a number that is no tensor of its own by multiplying with its rounded inverse.
    scaled = matrices / torch.full((1,), 0.5 * side, device=matrices.device)
    a, b, c = scaled[..., None, None].unbind(dim=2)  # each N,2,1,1
    offsets = torch.arange(side, device=matrices.device) - (side - 1) / 2
    return multiply_add(a * offsets, b, offsets[:, None]) + c
