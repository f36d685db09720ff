"""Flips and affine transforms of batches of images, each with its own matrix.

A matrix maps output to input coordinates, in pixels from the center: the rows of a 2x3 matrix, in one tuple.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fgvc_cli.data.batch_augmentation.draws import OpGroup
from fgvc_cli.data.batch_augmentation.pixel_ops import multiply_add

Matrix = tuple[float, float, float, float, float, float]

FLIP: Matrix = (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def rotation(angle: float) -> Matrix:
    """Return the matrix of a rotation about the center by `angle` degrees, counter-clockwise."""
    return affine(-(angle % 360), (0.0, 0.0), (0.0, 0.0), (0.0, 0.0))


def affine(angle: float, translation: Sequence[float], shear: Sequence[float], center: Sequence[float]) -> Matrix:
    """Return the matrix of a shear, then a rotation (both about `center`), then a translation.

    Args:
        angle: degrees, clockwise.
        translation: pixels to the right and down.
        shear: degrees along x and along y.
        center: x and y from the image's center, pixels.
    """
    angle, shear_x, shear_y = math.radians(angle), math.radians(shear[0]), math.radians(shear[1])
    cos, sin = math.cos(angle - shear_y) / math.cos(shear_y), math.sin(angle - shear_y) / math.cos(shear_y)
    forward_xy = -math.cos(angle - shear_y) * math.tan(shear_x) / math.cos(shear_y) - math.sin(angle)
    forward_yy = -math.sin(angle - shear_y) * math.tan(shear_x) / math.cos(shear_y) + math.cos(angle)
    # the determinant of the forward map is 1
    a, b, d, e = forward_yy, -forward_xy, -sin, cos
    x, y = center[0] + translation[0], center[1] + translation[1]
    return a, b, center[0] - (a * x + b * y), d, e, center[1] - (d * x + e * y)


def compose(first: Sequence[float], second: Sequence[float]) -> Matrix:
    """Return the matrix that applies `first` to an image, then `second`."""
    one, other = (np.array([matrix[:3], matrix[3:], (0.0, 0.0, 1.0)]) for matrix in (first, second))
    a, b, c, d, e, f = (one @ other)[:2].flatten().tolist()
    return a, b, c, d, e, f


def matrices(group: OpGroup) -> tuple[Tensor]:
    """Return the matrices of a group of affine transforms, float32 N,2,3."""
    return (torch.from_numpy(group.parameters.astype(np.float32)).view(-1, 2, 3),)


def flip(pixels: Tensor) -> Tensor:
    """Flip images N,3,S,S horizontally."""
    return pixels.flip(3)


def resample_nearest(pixels: Tensor, matrices: Tensor) -> Tensor:
    """Resample images to the nearest pixel; pixels from outside are black.

    On every device this gives the source pixels that `torch.nn.functional.grid_sample` gives on a CPU with
    torchvision's grid, also for halfway cases of a transform along one axis. (Halfway cases of a transform along both
    axes, which no policy draws, depend on the processor in torchvision.)

    Args:
        pixels: uint8 N,3,S,S.
        matrices: float32 N,2,3.
    """
    count, channels, side, _ = pixels.shape
    source = ((_grid(matrices, side) + 1) * (side / 2) - 0.5).round_()  # N,2,S,S: x, y
    clamped = source.clamp(0, side - 1)
    inside = (source == clamped).all(dim=1, keepdim=True)
    index = clamped[:, 1].long() * side + clamped[:, 0].long()
    gathered = pixels.flatten(2).gather(2, index.view(count, 1, -1).expand(-1, channels, -1)).view_as(pixels)
    return gathered * inside


def resample_bilinear(pixels: Tensor, matrices: Tensor) -> Tensor:
    """Resample as in `resample_nearest`, but bilinearly; pixels from outside are black, with a soft edge."""
    grid = _grid(matrices, pixels.shape[3]).permute(0, 2, 3, 1)
    sampled = F.grid_sample(pixels.float(), grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return sampled.round_().to(torch.uint8)


def _grid(matrices: Tensor, side: int) -> Tensor:
    """Return the source coordinates of each output pixel: N,2,S,S (x, y), from -1 to 1 over the image."""
    # A tensor, because a GPU divides by a Python number by multiplying with its rounded inverse.
    scaled = matrices / torch.full((1,), 0.5 * side, device=matrices.device)
    a, b, c = scaled[..., None, None].unbind(dim=2)  # each N,2,1,1
    offsets = torch.arange(side, device=matrices.device) - (side - 1) / 2
    return multiply_add(a * offsets, b, offsets[:, None]) + c
