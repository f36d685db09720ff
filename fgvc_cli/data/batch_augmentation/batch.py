"""Apply the drawn augmentations to a batch on the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor
from torchvision.transforms import v2

from fgvc_cli.data.batch_augmentation.draws import Draws, Kind, Mix, OpGroup, Step, sent
from fgvc_cli.data.batch_augmentation.geometry import bilinear_step, flip_step, nearest_step
from fgvc_cli.data.batch_augmentation.op_groups import op_groups
from fgvc_cli.data.batch_augmentation.pixel_ops import (
    blend_step,
    blur_step,
    erase_step,
    levels_step,
    sharpness_step,
    within,
)
from fgvc_cli.data.batch_augmentation.recording import blank


class BatchAugmentation:
    """Augments batches of pixels where they are.

    Args:
        mean: color of erased boxes, by channel in [0, 1].
        merge_geometry: one bilinear resampling for an image's consecutive geometric operations; else each its own, to
            the nearest pixel, as torchvision does.
    """

    def __init__(self, mean: Sequence[float], merge_geometry: bool = False) -> None:
        red, green, blue = (int(255 * channel) for channel in mean)
        self.merge_geometry = merge_geometry
        self._step_of: dict[Kind, Callable[[OpGroup], Step]] = {
            Kind.FLIP: flip_step,
            Kind.NEAREST: nearest_step,
            Kind.BILINEAR: bilinear_step,
            Kind.LEVELS: levels_step,
            Kind.BLEND: blend_step,
            Kind.SHARPNESS: sharpness_step,
            Kind.BLUR: blur_step,
            Kind.ERASE: partial(erase_step, color=(red, green, blue)),
        }

    @torch.no_grad()
    def __call__(self, pixels: Tensor, draws: Draws) -> Tensor:
        """Return new pixels, uint8 B,3,S,S, on the device of the old; mixing is not done here."""
        steps = [self._step_of[turn.kind](turn) for turn in op_groups(draws, self.merge_geometry)]
        if not steps:
            return pixels
        pixels = pixels.clone()
        for step in sent(steps, pixels.device):
            pixels.index_copy_(0, step.images, step.change(pixels.index_select(0, step.images), *step.parameters))
        return pixels


class Mixing:
    """Draws how images are mixed, from torch's generator of the CPU. With both alphas a fair coin decides.

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
        """Draw for one image; None if nothing is ever mixed."""
        mixup, cutmix = self._mixup, self._cutmix
        if mixup is not None and cutmix is not None:
            mixup, cutmix = (mixup, None) if torch.rand(()) < 0.5 else (None, cutmix)
        if mixup is not None:
            return Mix((0, 0, 0, 0), mixup.make_params([])["lam"])
        if cutmix is not None:
            drawn = cutmix.make_params([blank(self.side)])
            return Mix(drawn["box"], drawn["lam_adjusted"])
        return None


@torch.no_grad()
def mixed(images: Tensor, targets: Tensor, boxes: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
    """Mix each image of a batch, and its target, with the one before it.

    Args:
        images: B,3,S,S, normalized.
        targets: B,K probabilities.
        boxes: int64 B,4 on the CPU (left, top, right, bottom): taken from the other image; empty for mixup.
        shares: float64 B on the CPU: the image's own share.
    """
    cut = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    own = torch.where(cut, 1.0, shares)  # outside the box CutMix leaves an image as it is
    factors = torch.stack([own, 1 - own, shares, 1 - shares]).to(images.dtype)
    if images.device.type == "cuda":
        factors, boxes = factors.pin_memory(), boxes.pin_memory()
    factors, boxes = factors.to(images.device, non_blocking=True), boxes.to(images.device, non_blocking=True)
    inside = within(boxes, images.shape[3])
    of_own, of_other = factors[:2, :, None, None, None]
    pixels = images.roll(1, 0) * of_other.where(~inside, 1) + images * of_own.where(~inside, 0)
    label_own, label_other = factors[2:, :, None].to(targets.dtype)
    return pixels, targets.roll(1, 0) * label_other + targets * label_own
