"""The drawn augmentation of an image and of a batch, and the batched operations that apply it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

MAX_PARAMETERS = 6
"""Maximum number of parameters of an operation."""


class Operation(IntEnum):
    """An operation after the crop; its parameters are in parentheses."""

    NONE = 0
    FLIP = 1
    AFFINE = 2
    """Nearest-neighbor resampling (rows of the 2x3 matrix from output to input, in pixels from the center)."""
    RESAMPLE = 3
    """Several of the two above as one bilinear resampling (matrix, as above)."""
    POSTERIZE = 4
    """(bits)"""
    SOLARIZE = 5
    """(threshold in 0-255)"""
    INVERT = 6
    BRIGHTNESS = 7
    """(factor)"""
    AUTOCONTRAST = 8
    EQUALIZE = 9
    SATURATION = 10
    """(factor)"""
    CONTRAST = 11
    """(factor)"""
    SHARPNESS = 12
    """(factor)"""
    BLUR = 13
    """(sigma in pixels)"""
    ERASE = 14
    """(top, left, height, width)"""


class Op(NamedTuple):
    """One operation on one image."""

    operation: Operation
    parameters: tuple[float, ...] = ()


class Mix(NamedTuple):
    """How an image is mixed with the one before it in the batch.

    Attributes:
        box: left, top, right, bottom (exclusive) of the region that CutMix takes from the other; empty for mixup.
        weight: of the image itself in its label and, for mixup, in its pixels.
    """

    box: tuple[int, int, int, int]
    weight: float


class Draw(NamedTuple):
    """The drawn augmentation of one image: operations in order, then mixing."""

    ops: tuple[Op, ...] = ()
    mix: Mix | None = None


class Draws(NamedTuple):
    """The draws of a batch as small CPU tensors, which workers return with the batch."""

    operations: Tensor
    """uint8 B,T: operations of each image in order, padded with `NONE`"""
    parameters: Tensor
    """float64 B,T,6"""
    boxes: Tensor | None
    """int64 B,4: CutMix boxes (left, top, right, bottom); None: no mixing"""
    weights: Tensor | None
    """float64 B: weight of each image in its label; None: no mixing"""

    @classmethod
    def of(cls, draws: Sequence[Draw]) -> Draws:
        """Collate the draws of a batch's images."""
        longest = max((len(draw.ops) for draw in draws), default=0)
        operations = np.zeros((len(draws), longest), dtype=np.uint8)
        parameters = np.zeros((len(draws), longest, MAX_PARAMETERS))
        for row, draw in enumerate(draws):
            for column, op in enumerate(draw.ops):
                operations[row, column] = op.operation
                parameters[row, column, : len(op.parameters)] = op.parameters
        mixes = [draw.mix for draw in draws if draw.mix is not None]
        return cls(
            torch.from_numpy(operations),
            torch.from_numpy(parameters),
            torch.tensor([mix.box for mix in mixes], dtype=torch.int64) if mixes else None,
            torch.tensor([mix.weight for mix in mixes], dtype=torch.float64) if mixes else None,
        )


class Kind(IntEnum):
    """Operations that one computation can apply together."""

    NONE = 0
    FLIP = 1
    NEAREST = 2
    BILINEAR = 3
    LEVELS = 4
    """The new level of a pixel is a function of its level in the same channel."""
    BLEND = 5
    """Blend with the grayscale image or its mean."""
    SHARPNESS = 6
    BLUR = 7
    ERASE = 8


class OpGroup(NamedTuple):
    """Operations of one kind on some images of a batch.

    Attributes:
        kind: of all operations.
        images: int64 N, indices into the batch.
        operations: uint8 N, operation of each image, ascending.
        parameters: float64 N,6.
    """

    kind: Kind
    images: np.ndarray
    operations: np.ndarray
    parameters: np.ndarray


Computation = tuple[Callable[..., Tensor], tuple[Tensor, ...]]
"""A function of pixels, uint8 N,3,S,S, and of CPU tensors, and these tensors."""


class BatchOp(NamedTuple):
    """A batched computation on some images of a batch.

    Attributes:
        function: maps pixels, uint8 N,3,S,S, and `parameters` to new pixels.
        images: int64 N, indices into the batch.
        parameters: tensors for `function`, on the CPU until `to_device`.
    """

    function: Callable[..., Tensor]
    images: Tensor
    parameters: tuple[Tensor, ...] = ()


_ALIGNMENT = 8
"""Bytes: alignment of the widest dtype."""


def to_device(ops: Sequence[BatchOp], device: torch.device) -> list[BatchOp]:
    """Copy the tensors of batch operations to a device, all in one asynchronous transfer."""
    tensors = [tensor for op in ops for tensor in (op.images, *op.parameters)]
    sizes = [tensor.numel() * tensor.element_size() for tensor in tensors]
    starts = [0]
    for size in sizes:
        starts.append(starts[-1] + -(-size // _ALIGNMENT) * _ALIGNMENT)
    buffer = torch.empty(starts[-1], dtype=torch.uint8, pin_memory=device.type == "cuda")
    for tensor, start, size in zip(tensors, starts, sizes, strict=False):
        flat = tensor.contiguous().as_strided((tensor.numel(),), (1,))  # a single element may have any stride
        buffer[start : start + size] = flat.view(torch.uint8)
    copy = buffer.to(device, non_blocking=True)
    moved = iter(
        copy[start : start + size].view(tensor.dtype).view(tensor.shape)
        for tensor, start, size in zip(tensors, starts, sizes, strict=False)
    )
    return [BatchOp(op.function, next(moved), tuple(next(moved) for _ in op.parameters)) for op in ops]
