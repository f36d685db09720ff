"""Draws what torchvision's transforms would do to an image, without doing it.

The transforms of torchvision v2 hand an image on to kernels by its type. Here is a type whose kernels note what they
are asked for. So the very transforms that a worker would run on an image draw for the device too, from the same random
numbers in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from fgvc_cli.data.batch_augmentation import geometry
from fgvc_cli.data.batch_augmentation.draws import Note, Operation
from fgvc_cli.data.batch_augmentation.pixel_ops import BLUR_WIDTH


class Blank(tv_tensors.Image):
    """An image of a size and without pixels; it notes the operations that it goes through."""

    notes: list[Note]


def blank(side: int) -> Blank:
    """Return a blank of 3,side,side; it takes no memory."""
    made: Blank = torch.empty((), dtype=torch.uint8).expand(3, side, side).as_subclass(Blank)
    made.notes = []
    return made


def recorded(transform: Callable[[Any], Any], side: int) -> tuple[Note, ...]:
    """Return what a transform would do to an image of 3,side,side, drawing as it does.

    Raises:
        NotImplementedError: it uses an operation that is not known here.
    """
    made = blank(side)
    if transform(made) is not made:
        raise NotImplementedError(f"{transform} uses an operation that cannot be done on the device")
    return tuple(made.notes)


_AS_THEY_COME = {
    F.horizontal_flip: Operation.FLIP,
    F.posterize: Operation.POSTERIZE,
    F.solarize: Operation.SOLARIZE,
    F.invert: Operation.INVERT,
    F.adjust_brightness: Operation.BRIGHTNESS,
    F.autocontrast: Operation.AUTOCONTRAST,
    F.equalize: Operation.EQUALIZE,
    F.adjust_saturation: Operation.SATURATION,
    F.adjust_contrast: Operation.CONTRAST,
    F.adjust_sharpness: Operation.SHARPNESS,
}
"""Functionals with one number or none, which the note takes over."""


def _note(operation: Operation, image: Blank, *numbers: float, **named: float) -> Blank:
    image.notes.append(Note(operation, (*numbers, *named.values())))
    return image


for _functional, _operation in _AS_THEY_COME.items():
    F.register_kernel(_functional, Blank)(partial(_note, _operation))


@F.register_kernel(F.rotate, Blank)
def _rotate(image: Blank, angle: float, **_: Any) -> Blank:
    return _note(Operation.AFFINE, image, *geometry.rotation(angle))


@F.register_kernel(F.affine, Blank)
def _affine(
    image: Blank,
    angle: float,
    translate: Sequence[float],
    scale: float,
    shear: Sequence[float],
    center: Sequence[float] | None = None,
    **_: Any,
) -> Blank:
    if scale != 1:
        raise NotImplementedError("an affine map that scales cannot be done on the device")
    height, width = image.shape[-2:]
    center = (0.0, 0.0) if center is None else (center[0] - width / 2, center[1] - height / 2)
    return _note(Operation.AFFINE, image, *geometry.affine(angle, translate, shear, center))


@F.register_kernel(F.gaussian_blur, Blank)
def _blur(image: Blank, kernel_size: Sequence[int], sigma: Sequence[float]) -> Blank:
    if set(kernel_size) != {BLUR_WIDTH}:
        raise NotImplementedError(f"a blur {kernel_size} pixels wide cannot be done on the device")
    return _note(Operation.BLUR, image, sigma[0])


@F.register_kernel(F.erase, Blank)
def _erase(image: Blank, i: int, j: int, h: int, w: int, **_: Any) -> Blank:
    return _note(Operation.ERASE, image, i, j, h, w)
