"""Operations on pixel values of many images at once: levels, color, sharpness, blur, erasing."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fgvc_cli.data.batch_augmentation.draws import Operation, OpGroup, Step


def multiply_add(total: Tensor, first: Tensor, second: Tensor | float) -> Tensor:
    """Return float32 total + first * second, rounded once; all are float32.

    That is what torchvision's arithmetic does on a CPU with fused multiply-add. One that rounds the product too is off
    in the last place now and then, and where a gray level is cut off afterwards, or a nearest neighbor lies half-way,
    that shows. The product is exact in float64, which all but Apple's GPUs have.
    """
    if total.device.type == "mps":
        return total + first * second
    wide = second.double() if isinstance(second, Tensor) else second
    return (total.double() + first.double() * wide).float()


def levels_step(turn: OpGroup) -> Step:
    """Return the step of a turn; tables that do not depend on the image are made here, on the CPU."""
    order = np.argsort(turn.operations, kind="stable")  # autocontrast and equalize have the highest numbers
    operations, parameters = turn.operations[order], turn.parameters[order, 0]
    autocontrast, equalize = (int((operations == o).sum()) for o in (Operation.AUTOCONTRAST, Operation.EQUALIZE))
    known = len(order) - autocontrast - equalize
    tables = torch.from_numpy(_tables(operations[:known], parameters[:known]))
    change = partial(mapped, autocontrast=autocontrast, equalize=equalize)
    return Step(change, torch.from_numpy(turn.images[order]), (tables,))


def _tables(operations: np.ndarray, parameters: np.ndarray) -> np.ndarray:
    """Return uint8 N,256: the new level of each level, for operations that look at nothing else."""
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


def mapped(pixels: Tensor, tables: Tensor, autocontrast: int, equalize: int) -> Tensor:
    """Look up the new levels of images.

    Args:
        pixels: uint8 N,3,S,S: first images with known tables, then those for autocontrast, then for equalize.
        tables: uint8 M,256, of the first M images.
        autocontrast: how many images have each channel stretched to all levels.
        equalize: how many images have each channel's histogram flattened.
    """
    known = len(pixels) - autocontrast - equalize
    index = pixels.flatten(2).long()
    found = [tables[:, None].expand(-1, 3, -1)]
    if autocontrast:
        found.append(_stretching(pixels[known : known + autocontrast]))
    if equalize:
        found.append(_flattening(index[known + autocontrast :]))
    return torch.cat(found).gather(2, index).view_as(pixels)


def _stretching(pixels: Tensor) -> Tensor:
    """Return tables N,3,256 that spread each channel over all levels, as torchvision's `autocontrast` does."""
    least, most = (bound.float()[..., None] for bound in torch.aminmax(pixels.flatten(2), dim=2))
    flat = most == least
    scale = ((most - least) * (1 / 255)).masked_fill_(flat, 1)
    levels = torch.arange(256, device=pixels.device)
    return ((levels - least.masked_fill(flat, 0)) / scale).clamp_(0, 255).to(torch.uint8)


def _flattening(index: Tensor) -> Tensor:
    """Return tables N,3,256 that flatten each channel's histogram, as torchvision's (and Pillow's) `equalize` does.

    Args:
        index: int64 N,3,P, the levels of the pixels.
    """
    counts = torch.zeros(*index.shape[:2], 256, dtype=torch.int32, device=index.device)
    counts.scatter_add_(2, index, torch.ones((), dtype=torch.int32, device=index.device).expand_as(index))
    levels = torch.arange(256, device=index.device)
    highest = ((counts > 0) * levels).amax(dim=2, keepdim=True)
    step = (index.shape[2] - counts.gather(2, highest)) // 255
    before = counts.cumsum(2, dtype=torch.int32) - counts  # pixels darker than the level
    table = ((before + step // 2) // step.clamp(min=1)).clamp_(0, 255)
    return torch.where(step > 0, table, levels).to(torch.uint8)


RED, GREEN, BLUE = (float(np.float32(weight)) for weight in (0.2989, 0.587, 0.114))
"""Weights of the gray image (ITU-R 601-2), as torchvision has them."""


def blend_step(turn: OpGroup) -> Step:
    """Return the step of a turn of saturations and contrasts."""
    own = torch.from_numpy(turn.parameters[:, 0]).view(-1, 1, 1, 1)
    of_mean = torch.from_numpy(turn.operations == Operation.CONTRAST).view(-1, 1, 1, 1)
    return Step(blended, torch.from_numpy(turn.images), (own.float(), (1 - own).float(), of_mean))


def blended(pixels: Tensor, own: Tensor, other: Tensor, of_mean: Tensor) -> Tensor:
    """Blend images with gray.

    Args:
        pixels: uint8 N,3,S,S.
        own: float32 N,1,1,1, the image's factor; beyond 1 it moves away from gray.
        other: float32 N,1,1,1, the factor of the gray: 1 - own.
        of_mean: bool N,1,1,1, whether the gray is the mean of the gray image, and not that image.
    """
    gray = _gray(pixels)
    mean = gray.mean(dim=(1, 2, 3), keepdim=True, dtype=_widest(pixels)).float()
    blend = multiply_add(pixels * own, torch.where(of_mean, mean, gray), other)
    return blend.clamp_(0, 255).to(torch.uint8)


def _gray(pixels: Tensor) -> Tensor:
    """Return float32 N,1,S,S: the whole gray level of each pixel."""
    red, green, blue = pixels.float().split(1, dim=1)
    return multiply_add(multiply_add(red * RED, green, GREEN), blue, BLUE).floor_()


def _widest(pixels: Tensor) -> torch.dtype:
    return torch.float32 if pixels.device.type == "mps" else torch.float64


BLUR_WIDTH = 5
"""Pixels across which a Gaussian blur reaches."""


def sharpness_step(turn: OpGroup) -> Step:
    """Return the step of a turn of sharpness."""
    factor = torch.from_numpy(turn.parameters[:, 0]).view(-1, 1, 1, 1)
    return Step(sharpened, torch.from_numpy(turn.images), ((1 - factor).float(),))


def blur_step(turn: OpGroup) -> Step:
    """Return the step of a turn of Gaussian blurs."""
    reach = (BLUR_WIDTH - 1) / (2 * math.sqrt(2))
    points = torch.linspace(-reach, reach, BLUR_WIDTH)
    sigma = torch.from_numpy(turn.parameters[:, 0].astype(np.float32)).view(-1, 1)
    weights = (points / sigma).pow(2).neg().softmax(dim=1)
    return Step(blurred, torch.from_numpy(turn.images), (weights,))


def sharpened(pixels: Tensor, smooth: Tensor) -> Tensor:
    """Blend images with a smoothed version of themselves; their outermost pixels stay.

    Args:
        pixels: uint8 N,3,S,S.
        smooth: float32 N,1,1,1, the factor of the smoothed version; below 0 the image gets sharper.
    """
    inner = pixels[..., 1:-1, 1:-1].float()
    # The 3x3 mean with a fivefold center. The sum is a whole number, and a 13th of it is never half-way between two.
    mean = (_sum_of_nine(pixels) + 4 * inner).div_(13).round_()
    new = multiply_add(inner, mean - inner, smooth).clamp_(0, 255)
    sharp = pixels.clone()
    sharp[..., 1:-1, 1:-1] = new.to(torch.uint8)
    return sharp


def _sum_of_nine(pixels: Tensor) -> Tensor:
    """Return the sums over 3x3 pixels, int16 N,3,S-2,S-2."""
    wide = pixels.to(torch.int16)
    rows = wide[..., :-2, :] + wide[..., 1:-1, :] + wide[..., 2:, :]
    return rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]


def blurred(pixels: Tensor, weights: Tensor) -> Tensor:
    """Blur images; they are mirrored at their edges.

    Args:
        pixels: uint8 N,3,S,S.
        weights: float32 N,5, of the pixels in a row and in a column.
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


def erase_step(turn: OpGroup, color: tuple[int, int, int]) -> Step:
    """Return the step of a turn of erased boxes; `color` (0 to 255) is what they get."""
    top, left, height, width = turn.parameters[:, :4].astype(np.int64).T
    boxes = torch.from_numpy(np.stack([left, top, left + width, top + height], axis=1))
    return Step(partial(erased, color=color), torch.from_numpy(turn.images), (boxes,))


def erased(pixels: Tensor, boxes: Tensor, color: tuple[int, int, int]) -> Tensor:
    """Blank a box in each image N,3,S,S; `boxes` as `within` takes them."""
    inside = within(boxes, pixels.shape[3])
    channels = [channel.masked_fill(inside, level) for channel, level in zip(pixels.split(1, 1), color, strict=True)]
    return torch.cat(channels, dim=1)


def within(boxes: Tensor, side: int) -> Tensor:
    """Return bool N,1,S,S: which pixels lie in the boxes, int64 N,4 (left, top, right, bottom)."""
    left, top, right, bottom = boxes[:, :, None].unbind(dim=1)
    along = torch.arange(side, device=boxes.device)
    columns, rows = (along >= left) & (along < right), (along >= top) & (along < bottom)
    return rows[:, None, :, None] & columns[:, None, None, :]
