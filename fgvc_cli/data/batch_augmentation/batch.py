"""Apply the drawn augmentations to a batch on the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor
from torchvision.transforms import v2

from fgvc_cli.data.batch_augmentation import geometry, pixel_ops
from fgvc_cli.data.batch_augmentation.draws import BatchOp, Computation, Draws, Kind, Mix, OpGroup, to_device
from fgvc_cli.data.batch_augmentation.op_groups import op_groups
from fgvc_cli.data.batch_augmentation.recording import placeholder


class BatchAugmentation:
    """Augments batches of pixels on their device.

    Args:
        mean: color of erased boxes, per channel in [0, 1].
        merge_geometry: apply an image's consecutive geometric operations as one bilinear resampling; otherwise each on
            its own, to the nearest pixel, as torchvision does.
    """

    def __init__(self, mean: Sequence[float], merge_geometry: bool = False) -> None:
        red, green, blue = (int(255 * channel) for channel in mean)
        self.merge_geometry = merge_geometry
        self._computations: dict[Kind, Callable[[OpGroup], Computation]] = {
            Kind.FLIP: lambda _: (geometry.flip, ()),
            Kind.NEAREST: lambda group: (geometry.resample_nearest, geometry.matrices(group)),
            Kind.BILINEAR: lambda group: (geometry.resample_bilinear, geometry.matrices(group)),
            Kind.LEVELS: pixel_ops.levels_op,
            Kind.BLEND: pixel_ops.blend_op,
            Kind.SHARPNESS: pixel_ops.sharpness_op,
            Kind.BLUR: pixel_ops.blur_op,
            Kind.ERASE: partial(pixel_ops.erase_op, color=(red, green, blue)),
        }

    @torch.no_grad()
    def __call__(self, pixels: Tensor, draws: Draws) -> Tensor:
        """Return new pixels, uint8 B,3,S,S, on the same device; mixing is left to `mix_batch`."""
        ops = []
        for group in op_groups(draws, self.merge_geometry):
            function, parameters = self._computations[group.kind](group)
            ops.append(BatchOp(function, torch.from_numpy(group.images), parameters))
        if not ops:
            return pixels
        pixels = pixels.clone()
        for op in to_device(ops, pixels.device):
            pixels.index_copy_(0, op.images, op.function(pixels.index_select(0, op.images), *op.parameters))
        return pixels


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


@torch.no_grad()
def mix_batch(images: Tensor, targets: Tensor, boxes: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Mix each image of a batch, and its target, with the one before it.

    Args:
        images: B,3,S,S, normalized.
        targets: B,K probabilities.
        boxes: int64 B,4 on the CPU (left, top, right, bottom): taken from the other image; empty for mixup.
        weights: float64 B on the CPU: weight of the image itself.
    """
    cut = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    own = torch.where(cut, 1.0, weights)  # outside of the box CutMix leaves an image unchanged
    factors = torch.stack([own, 1 - own, weights, 1 - weights]).to(images.dtype)
    if images.device.type == "cuda":
        factors, boxes = factors.pin_memory(), boxes.pin_memory()
    factors, boxes = factors.to(images.device, non_blocking=True), boxes.to(images.device, non_blocking=True)
    inside = pixel_ops.box_mask(boxes, images.shape[3])
    of_own, of_other = factors[:2, :, None, None, None]
    pixels = images.roll(1, 0) * of_other.where(~inside, 1) + images * of_own.where(~inside, 0)
    label_own, label_other = factors[2:, :, None].to(targets.dtype)
    return pixels, targets.roll(1, 0) * label_other + targets * label_own
