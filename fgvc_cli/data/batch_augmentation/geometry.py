"""Flips and affine transforms of many images at once, each with its own matrix."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fgvc_cli.data.batch_augmentation.draws import OpGroup, Step
from fgvc_cli.data.batch_augmentation.pixel_ops import multiply_add

Matrix = tuple[float, float, float, float, float, float]

FLIP: Matrix = (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def rotation(angle: float) -> Matrix:
    """Return the map of a rotation about the center by `angle` degrees, counter-clockwise."""
    return affine(-(angle % 360), (0.0, 0.0), (0.0, 0.0), (0.0, 0.0))


def affine(angle: float, translation: Sequence[float], shear: Sequence[float], center: Sequence[float]) -> Matrix:
    """Return the map that undoes: shear, rotate (both about `center`), then shift.

    Args:
        angle: degrees, clockwise.
        translation: pixels to the right and down.
        shear: degrees along x and along y.
        center: x and y from the image's center, pixels.
    """
    turn, shear_x, shear_y = math.radians(angle), math.radians(shear[0]), math.radians(shear[1])
    cos, sin = math.cos(turn - shear_y) / math.cos(shear_y), math.sin(turn - shear_y) / math.cos(shear_y)
    forward_xy = -math.cos(turn - shear_y) * math.tan(shear_x) / math.cos(shear_y) - math.sin(turn)
    forward_yy = -math.sin(turn - shear_y) * math.tan(shear_x) / math.cos(shear_y) + math.cos(turn)
    # the determinant of the forward map is 1
    a, b, d, e = forward_yy, -forward_xy, -sin, cos
    x, y = center[0] + translation[0], center[1] + translation[1]
    return a, b, center[0] - (a * x + b * y), d, e, center[1] - (d * x + e * y)


def composed(first: Sequence[float], second: Sequence[float]) -> Matrix:
    """Return the one map that does what two do to an image, one after the other."""
    product = _square(first) @ _square(second)
    a, b, c, d, e, f = product[:2].flatten().tolist()
    return a, b, c, d, e, f


def _square(matrix: Sequence[float]) -> np.ndarray:
    return np.array([matrix[:3], matrix[3:], (0.0, 0.0, 1.0)])


def flip_step(turn: OpGroup) -> Step:
    """Return the step of a turn of flips."""
    return Step(flipped, torch.from_numpy(turn.images))


def nearest_step(turn: OpGroup) -> Step:
    """Return the step of a turn of affine maps."""
    return Step(nearest, torch.from_numpy(turn.images), (_matrices(turn),))


def bilinear_step(turn: OpGroup) -> Step:
    """Return the step of a turn of merged affine maps."""
    return Step(bilinear, torch.from_numpy(turn.images), (_matrices(turn),))


def _matrices(turn: OpGroup) -> Tensor:
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
