"""Operations on the pixel values of batches of images: levels, color, sharpness, blur, erasing."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fgvc_cli.data.batch_augmentation.draws import Computation, Operation, OpGroup


def multiply_add(total: Tensor, first: Tensor, second: Tensor | float) -> Tensor:
    """Return float32 `total + first * second`, rounded once; all are float32.

    This matches torchvision on a CPU with fused multiply-add. Rounding the product too would occasionally change the
    last bit, which is visible where a gray level is truncated afterwards, or a nearest neighbor lies halfway. The
    product is exact in float64, which every device but Apple's GPUs supports.
    """
    if total.device.type == "mps":
        return total + first * second
    wide = second.double() if isinstance(second, Tensor) else second
    return (total.double() + first.double() * wide).float()


def levels_op(group: OpGroup) -> Computation:
    """Return the computation of a group; tables that do not depend on the image are computed here, on the CPU."""
    # autocontrast and equalize have the highest numbers, and so come last
    autocontrast, equalize = (int((group.operations == o).sum()) for o in (Operation.AUTOCONTRAST, Operation.EQUALIZE))
    known = len(group.operations) - autocontrast - equalize
    tables = torch.from_numpy(_tables(group.operations[:known], group.parameters[:known, 0]))
    return partial(map_levels, autocontrast=autocontrast, equalize=equalize), (tables,)


def _tables(operations: np.ndarray, parameters: np.ndarray) -> np.ndarray:
    """Return uint8 N,256: the new level of each level, for operations that depend on nothing else."""
    levels = np.arange(256, dtype=np.uint8)
    tables = np.empty((len(operations), 256), dtype=np.uint8)
    for operation in np.unique(operations).tolist():
        chosen = operations == operation
        number = parameters[chosen, None]
        new: np.ndarray
        if operation == Operation.POSTERIZE:
            dropped = 8 - number.astype(np.int64)
            new = levels >> dropped << dropped
        elif operation == Operation.SOLARIZE:
            new = np.where(levels.astype(np.float32) >= number.astype(np.float32), 255 - levels, levels)
        elif operation == Operation.INVERT:
            new = 255 - levels
        else:
            new = (levels * number.astype(np.float32)).clip(0, 255)
        tables[chosen] = new
    return tables


def map_levels(pixels: Tensor, tables: Tensor, autocontrast: int, equalize: int) -> Tensor:
    """Map the levels of images by lookup tables.

    Args:
        pixels: uint8 N,3,S,S: first images with given tables, then those for autocontrast, then for equalize.
        tables: uint8 M,256, of the first M images.
        autocontrast: number of images whose channels are stretched to all levels.
        equalize: number of images whose channel histograms are equalized.
    """
    known = len(pixels) - autocontrast - equalize
    index = pixels.flatten(2).long()
    found = [tables[:, None].expand(-1, 3, -1)]
    if autocontrast:
        found.append(_autocontrast_tables(pixels[known : known + autocontrast]))
    if equalize:
        found.append(_equalize_tables(index[known + autocontrast :]))
    return torch.cat(found).gather(2, index).view_as(pixels)


def _autocontrast_tables(pixels: Tensor) -> Tensor:
    """Return tables N,3,256 that stretch each channel to all levels, as torchvision's `autocontrast` does."""
    least, most = (bound.float()[..., None] for bound in torch.aminmax(pixels.flatten(2), dim=2))
    flat = most == least
    scale = ((most - least) * (1 / 255)).masked_fill_(flat, 1)
    levels = torch.arange(256, device=pixels.device)
    return ((levels - least.masked_fill(flat, 0)) / scale).clamp_(0, 255).to(torch.uint8)


def _equalize_tables(index: Tensor) -> Tensor:
    """Return tables N,3,256 that equalize histograms of levels, int64 N,3,P, as torchvision and Pillow do."""
    counts = torch.zeros(*index.shape[:2], 256, dtype=torch.int32, device=index.device)
    counts.scatter_add_(2, index, torch.ones((), dtype=torch.int32, device=index.device).expand_as(index))
    levels = torch.arange(256, device=index.device)
    highest = ((counts > 0) * levels).amax(dim=2, keepdim=True)
    step = (index.shape[2] - counts.gather(2, highest)) // 255
    before = counts.cumsum(2, dtype=torch.int32) - counts  # pixels darker than the level
    table = ((before + step // 2) // step.clamp(min=1)).clamp_(0, 255)
    return torch.where(step > 0, table, levels).to(torch.uint8)


RED, GREEN, BLUE = (float(np.float32(weight)) for weight in (0.2989, 0.587, 0.114))
"""Grayscale weights (ITU-R 601-2), as in torchvision."""


def blend_op(group: OpGroup) -> Computation:
    """Return the computation of a group of saturations and contrasts."""
    own = torch.from_numpy(group.parameters[:, 0]).view(-1, 1, 1, 1)
    of_mean = torch.from_numpy(group.operations == Operation.CONTRAST).view(-1, 1, 1, 1)
    return blend, (own.float(), (1 - own).float(), of_mean)


def blend(pixels: Tensor, own: Tensor, other: Tensor, of_mean: Tensor) -> Tensor:
    """Blend images with their grayscale version, or with its mean.

    Args:
        pixels: uint8 N,3,S,S.
        own: float32 N,1,1,1, factor of the image; above 1 it moves away from gray.
        other: float32 N,1,1,1, factor of the gray: 1 - own.
        of_mean: bool N,1,1,1, whether to blend with the mean of the grayscale image.
    """
    gray = _gray(pixels)
    widest = torch.float32 if pixels.device.type == "mps" else torch.float64
    mean = gray.mean(dim=(1, 2, 3), keepdim=True, dtype=widest).float()
    blend = multiply_add(pixels * own, torch.where(of_mean, mean, gray), other)
    return blend.clamp_(0, 255).to(torch.uint8)


def _gray(pixels: Tensor) -> Tensor:
    """Return float32 N,1,S,S: the gray level of each pixel, rounded down."""
    red, green, blue = pixels.float().split(1, dim=1)
    return multiply_add(multiply_add(red * RED, green, GREEN), blue, BLUE).floor_()


BLUR_WIDTH = 5
"""Kernel size of a Gaussian blur, pixels."""


def sharpness_op(group: OpGroup) -> Computation:
    """Return the computation of a group of sharpness changes."""
    factor = torch.from_numpy(group.parameters[:, 0]).view(-1, 1, 1, 1)
    return sharpen, ((1 - factor).float(),)


def blur_op(group: OpGroup) -> Computation:
    """Return the computation of a group of Gaussian blurs."""
    reach = (BLUR_WIDTH - 1) / (2 * math.sqrt(2))
    points = torch.linspace(-reach, reach, BLUR_WIDTH)
    sigma = torch.from_numpy(group.parameters[:, 0].astype(np.float32)).view(-1, 1)
    weights = (points / sigma).pow(2).neg().softmax(dim=1)
    return blur, (weights,)


def sharpen(pixels: Tensor, smooth: Tensor) -> Tensor:
    """Blend images with a smoothed version of themselves; their border pixels are unchanged.

    Args:
        pixels: uint8 N,3,S,S.
        smooth: float32 N,1,1,1, factor of the smoothed version; below 0 the image gets sharper.
    """
    inner = pixels[..., 1:-1, 1:-1].float()
    wide = pixels.to(torch.int16)
    rows = wide[..., :-2, :] + wide[..., 1:-1, :] + wide[..., 2:, :]
    sums = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    # The 3x3 mean with a center weight of 5. The sum is an integer, and a 13th of it is never halfway between two.
    mean = (sums + 4 * inner).div_(13).round_()
    new = multiply_add(inner, mean - inner, smooth).clamp_(0, 255)
    sharp = pixels.clone()
    sharp[..., 1:-1, 1:-1] = new.to(torch.uint8)
    return sharp


def blur(pixels: Tensor, weights: Tensor) -> Tensor:
    """Blur images with a separable kernel and reflection padding.

    Args:
        pixels: uint8 N,3,S,S.
        weights: float32 N,5, of the kernel along each axis.
    """
    side, margin = pixels.shape[3], BLUR_WIDTH // 2
    padded = F.pad(pixels.float(), [margin] * 4, mode="reflect")
    taps = weights.view(-1, BLUR_WIDTH, 1, 1, 1).unbind(dim=1)
    rows = padded[..., :side] * taps[0]
    for shift, tap in enumerate(taps[1:], start=1):
        rows = torch.addcmul(rows, padded[..., shift : shift + side], tap)
    both = rows[..., :side, :] * taps[0]
    for shift, tap in enumerate(taps[1:], start=1):
        both = torch.addcmul(both, rows[..., shift : shift + side, :], tap)
    return both.round_().to(torch.uint8)


def erase_op(group: OpGroup, color: tuple[int, int, int]) -> Computation:
    """Return the computation of a group of erased boxes, which get `color` (0 to 255)."""
    top, left, height, width = group.parameters[:, :4].astype(np.int64).T
    boxes = torch.from_numpy(np.stack([left, top, left + width, top + height], axis=1))
    return partial(erase, color=color), (boxes,)


def erase(pixels: Tensor, boxes: Tensor, color: tuple[int, int, int]) -> Tensor:
    """Fill a box in each image N,3,S,S; `boxes` as in `box_mask`."""
    inside = box_mask(boxes, pixels.shape[3])
    channels = [channel.masked_fill(inside, level) for channel, level in zip(pixels.split(1, 1), color, strict=True)]
    return torch.cat(channels, dim=1)


def box_mask(boxes: Tensor, side: int) -> Tensor:
    """Return bool N,1,S,S: whether a pixel lies in the image's box, int64 N,4 (left, top, right, bottom)."""
    left, top, right, bottom = boxes[:, :, None].unbind(dim=1)
    along = torch.arange(side, device=boxes.device)
    columns, rows = (along >= left) & (along < right), (along >= top) & (along < bottom)
    return rows[:, None, :, None] & columns[:, None, None, :]
