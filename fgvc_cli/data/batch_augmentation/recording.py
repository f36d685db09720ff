"""Record what torchvision's transforms would do to an image, without applying them.

The transforms of torchvision v2 dispatch to kernels by the type of the image. This module registers kernels for a
placeholder type that only record which operation was requested. The transforms that a worker would apply to an image
therefore draw the same random numbers in the same order for the device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from fgvc_cli.data.batch_augmentation import geometry
from fgvc_cli.data.batch_augmentation.draws import Mix, Op, Operation
from fgvc_cli.data.batch_augmentation.pixel_ops import BLUR_WIDTH


class Placeholder(tv_tensors.Image):
    """An image with a size and without pixels; it records the operations applied to it."""

    ops: list[Op]


def placeholder(side: int) -> Placeholder:
    """Return a placeholder of 3,side,side, which takes no memory."""
    made: Placeholder = torch.empty((), dtype=torch.uint8).expand(3, side, side).as_subclass(Placeholder)
    made.ops = []
    return made


def record(transform: Callable[[Any], Any], side: int) -> tuple[Op, ...]:
    """Return the operations that a transform would apply to an image of 3,side,side, with its random draws.

    Raises:
        NotImplementedError: it uses an operation that the device does not support.
    """
    made = placeholder(side)
    if transform(made) is not made:
        raise NotImplementedError(f"{transform} uses an operation that is not supported on the device")
    return tuple(made.ops)


def _record(operation: Operation, image: Placeholder, *numbers: float, **named: float) -> Placeholder:
    image.ops.append(Op(operation, (*numbers, *named.values())))
    return image


for _functional, _operation in {
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
}.items():  # their arguments, one number or none, are the parameters
    F.register_kernel(_functional, Placeholder)(partial(_record, _operation))


@F.register_kernel(F.rotate, Placeholder)
def _rotate(image: Placeholder, angle: float, **_: Any) -> Placeholder:
    return _record(Operation.AFFINE, image, *geometry.rotation(angle))


@F.register_kernel(F.affine, Placeholder)
def _affine(
    image: Placeholder,
    angle: float,
    translate: Sequence[float],
    scale: float,
    shear: Sequence[float],
    center: Sequence[float] | None = None,
    **_: Any,
) -> Placeholder:
    if scale != 1:
        raise NotImplementedError("an affine transform that scales is not supported on the device")
    height, width = image.shape[-2:]
    center = (0.0, 0.0) if center is None else (center[0] - width / 2, center[1] - height / 2)
    return _record(Operation.AFFINE, image, *geometry.affine(angle, translate, shear, center))


@F.register_kernel(F.gaussian_blur, Placeholder)
def _blur(image: Placeholder, kernel_size: Sequence[int], sigma: Sequence[float]) -> Placeholder:
    if set(kernel_size) != {BLUR_WIDTH}:
        raise NotImplementedError(f"a blur of kernel size {kernel_size} is not supported on the device")
    return _record(Operation.BLUR, image, sigma[0])


@F.register_kernel(F.erase, Placeholder)
def _erase(image: Placeholder, i: int, j: int, h: int, w: int, **_: Any) -> Placeholder:
    return _record(Operation.ERASE, image, i, j, h, w)


class Mixing:
    """Draws the parameters of mixup and CutMix from torch's CPU generator; with both alphas, one of them at random.

    Args:
        mixup: alpha of mixup's Beta distribution; 0: no mixup.
        cutmix: alpha of CutMix's; 0: no CutMix.
        side: of the images, pixels.
    """

    def __init__(self, mixup: float, cutmix: float, side: int) -> None:
        self.side = side
        self._mixup = v2.MixUp(alpha=mixup) if mixup else None
        self._cutmix = v2.CutMix(alpha=cutmix) if cutmix else None

    def draw(self) -> Mix | None:
        """Draw for one image; None if both alphas are 0."""
        mixup, cutmix = self._mixup, self._cutmix
        if mixup is not None and cutmix is not None:
            mixup, cutmix = (mixup, None) if torch.rand(()) < 0.5 else (None, cutmix)
        if mixup is not None:
            return Mix((0, 0, 0, 0), mixup.make_params([])["lam"])
        if cutmix is not None:
            drawn = cutmix.make_params([placeholder(self.side)])
            return Mix(drawn["box"], drawn["lam_adjusted"])
        return None
