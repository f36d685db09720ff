"""What was drawn for an image and for a batch, and the steps that apply it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

PARAMETERS = 6
"""Most numbers that an operation takes."""


class Operation(IntEnum):
    """What can happen to an image after the crop; in brackets the parameters."""

    NONE = 0
    FLIP = 1
    AFFINE = 2
    """Nearest-neighbor resampling (rows of the 2x3 matrix from output to input, in pixels from the center)."""
    RESAMPLE = 3
    """Several of the two above as one bilinear resampling (matrix, likewise)."""
    POSTERIZE = 4
    """(bits)"""
    SOLARIZE = 5
    """(threshold, of 255)"""
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
    """(sigma, pixels)"""
    ERASE = 14
    """(top, left, height, width)"""


class Note(NamedTuple):
    """One operation on one image."""

    operation: Operation
    parameters: tuple[float, ...] = ()


class Mix(NamedTuple):
    """How an image is mixed with the one before it in the batch.

    Attributes:
        box: left, top, right, bottom (exclusive) of what CutMix takes from the other; empty for mixup.
        share: of the image itself in its label and, for mixup, in its pixels.
    """

    box: tuple[int, int, int, int]
    share: float


class Draw(NamedTuple):
    """What is to happen to one image: operations in their order, then mixing."""

    notes: tuple[Note, ...] = ()
    mix: Mix | None = None


class Draws(NamedTuple):
    """The draws of a batch, as small tensors on the CPU; they travel as batches do."""

    operations: Tensor
    """uint8 B,T: each image's operations in their order, then `NONE`"""
    parameters: Tensor
    """float64 B,T,6"""
    boxes: Tensor | None
    """int64 B,4: left, top, right, bottom of CutMix's boxes; None: nothing is mixed"""
    shares: Tensor | None
    """float64 B: each image's own share in its label; None: nothing is mixed"""

    @classmethod
    def of(cls, draws: Sequence[Draw]) -> Draws:
        """Put the draws of a batch's images together."""
        longest = max((len(draw.notes) for draw in draws), default=0)
        operations = np.zeros((len(draws), longest), dtype=np.uint8)
        parameters = np.zeros((len(draws), longest, PARAMETERS))
        for row, draw in enumerate(draws):
            for column, note in enumerate(draw.notes):
                operations[row, column] = note.operation
                parameters[row, column, : len(note.parameters)] = note.parameters
        mixes = [draw.mix for draw in draws if draw.mix is not None]
        return cls(
            torch.from_numpy(operations),
            torch.from_numpy(parameters),
            torch.tensor([mix.box for mix in mixes], dtype=torch.int64) if mixes else None,
            torch.tensor([mix.share for mix in mixes], dtype=torch.float64) if mixes else None,
        )


_ALIGNMENT = 8
"""Bytes: what the widest type starts at a multiple of."""


class Step(NamedTuple):
    """One batched computation, not yet done.

    Attributes:
        change: turns pixels, uint8 N,3,S,S, and the parameters into new pixels.
        images: int64 N, which images of the batch.
        parameters: tensors that `change` takes, on the CPU until `sent`.
    """

    change: Callable[..., Tensor]
    images: Tensor
    parameters: tuple[Tensor, ...] = ()


def sent(steps: Sequence[Step], device: torch.device) -> list[Step]:
    """Return the steps with their tensors on a device, all in one transfer that nothing waits for."""
    tensors = iter(_sent([tensor for step in steps for tensor in (step.images, *step.parameters)], device))
    return [Step(step.change, next(tensors), tuple(next(tensors) for _ in step.parameters)) for step in steps]


def _sent(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    sizes = [tensor.numel() * tensor.element_size() for tensor in tensors]
    starts = [0]
    for size in sizes:
        starts.append(starts[-1] + -(-size // _ALIGNMENT) * _ALIGNMENT)
    parcel = torch.empty(starts[-1], dtype=torch.uint8, pin_memory=device.type == "cuda")
    for tensor, start, size in zip(tensors, starts, sizes, strict=False):
        flat = tensor.contiguous().as_strided((tensor.numel(),), (1,))  # of one element the stride is arbitrary
        parcel[start : start + size] = flat.view(torch.uint8)
    there = parcel.to(device, non_blocking=True)
    return [
        there[start : start + size].view(tensor.dtype).view(tensor.shape)
        for tensor, start, size in zip(tensors, starts, sizes, strict=False)
    ]


class Kind(IntEnum):
    """Operations that one computation does side by side."""

    NONE = 0
    FLIP = 1
    NEAREST = 2
    BILINEAR = 3
    LEVELS = 4
    """A gray level follows from the same pixel's level in the same channel."""
    BLEND = 5
    """A blend with the gray image or its mean."""
    SHARPNESS = 6
    BLUR = 7
    ERASE = 8


class OpGroup(NamedTuple):
    """Operations of one kind on some images of a batch.

    Attributes:
        kind: of all of them.
        images: int64 N, which images of the batch.
        operations: uint8 N, what each gets.
        parameters: float64 N,6.
    """

    kind: Kind
    images: np.ndarray
    operations: np.ndarray
    parameters: np.ndarray
