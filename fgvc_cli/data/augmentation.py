"""Augmentation of training images."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torchvision.transforms import v2

from fgvc_cli.config.train_options import AugmentOptions
from fgvc_cli.contracts.classifier import Preprocessing, to_tensor
from fgvc_cli.data.batch_augmentation.draws import Draw
from fgvc_cli.data.batch_augmentation.pixel_ops import BLUR_WIDTH
from fgvc_cli.data.batch_augmentation.recording import Mixing, record

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage


class Augmentation:
    """Turns an RGB image into an augmented uint8 tensor 3,S,S; normalization follows on the device.

    Crop and flip come first and the policy is applied to the crop, unless `before_resize` is set: then the policy is
    applied to the whole image before resize, crop and flip. All random numbers come from torch's CPU generator.

    With `where="device"` only the crop is applied here; `draw` draws the rest, from the same random numbers in the same
    order, for `fgvc_cli.data.batch_augmentation`. Mixup and CutMix are always left to that.

    Args:
        options: of the augmentation; `where="auto"` is "workers" here (see `resolve_where`).
        preprocessing: of evaluation; gives size, resize, interpolation and mean color.
    """

    def __init__(self, options: AugmentOptions, preprocessing: Preprocessing) -> None:
        self.options, self.preprocessing = options, preprocessing
        policy = _policy(options)
        crop, flip = _crop(options, preprocessing), [v2.RandomHorizontalFlip(options.flip)]
        ordered = [*policy, *crop, *flip] if options.before_resize else [*crop, *flip, *policy]
        appearance, erase = _appearance(options), _erase(options, preprocessing)
        self._on_image = v2.Compose([*ordered, *appearance])
        self._on_tensor = erase
        self._crop = v2.Compose(crop)
        later = [*flip, *policy, *appearance, *([] if erase is None else [erase])]
        self._later = v2.Compose(later) if options.where == "device" else None
        self._mixing = Mixing(options.mixup, options.cutmix, preprocessing.image_size)

    @property
    def target_side(self) -> int | None:
        """Minimum short side in pixels of an image that is decoded at a reduced size; None: full size."""
        if self.options.before_resize:
            return None
        if self.options.crop == "resized":
            # the smallest crop has a relative area of scale_min and an aspect ratio of 3/4, and must not be enlarged
            return math.ceil(self.preprocessing.image_size / math.sqrt(0.75 * self.options.scale_min))
        return self.preprocessing.resize

    def __call__(self, image: PILImage) -> Tensor:
        """Return an RGB image as an augmented uint8 tensor 3,S,S."""
        tensor = to_tensor(self._on_image(image))
        return tensor if self._on_tensor is None else self._on_tensor(tensor)

    def in_worker(self, image: PILImage) -> tuple[Tensor, Draw]:
        """Apply the worker's part to an RGB image: return uint8 3,S,S, and the augmentation left for the device."""
        pixels = self(image) if self._later is None else self.crop(image)
        return pixels, self.draw()

    def crop(self, image: PILImage) -> Tensor:
        """Return a random crop of an RGB image, uint8 3,S,S, without further augmentation."""
        return to_tensor(self._crop(image))

    def draw(self) -> Draw:
        """Draw the augmentation left after the crop (`where="device"`) or after all else (`where="workers"`)."""
        ops = () if self._later is None else record(self._later, self.preprocessing.image_size)
        return Draw(ops, self._mixing.draw())


def resolve_where(options: AugmentOptions, device: torch.device) -> AugmentOptions:
    """Resolve `where="auto"`: augmentation runs on the device if that is a CUDA GPU, and in the workers otherwise.

    Merged geometry runs only on the device, and a policy before the resize only in the workers.
    """
    if options.where != "auto":
        return options
    gpu = device.type == "cuda" and not options.before_resize
    return replace(options, where="device" if gpu or options.merge_geometry else "workers")


class _Resize(torch.nn.Module):
    """`Preprocessing.resized` as a transform."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.preprocessing = preprocessing

    def forward(self, image: PILImage) -> PILImage:
        return self.preprocessing.resized(image)


class _CenterCrop(torch.nn.Module):
    """The crop of `Preprocessing` as a transform; torchvision's may be one pixel aside."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.preprocessing = preprocessing

    def forward(self, image: PILImage) -> PILImage:
        return image.crop(self.preprocessing.crop_box(image.size))


def _crop(options: AugmentOptions, preprocessing: Preprocessing) -> list[Any]:
    size = preprocessing.image_size
    if options.crop == "resized":
        interpolation = v2.InterpolationMode(preprocessing.interpolation)
        return [v2.RandomResizedCrop(size, scale=(options.scale_min, 1.0), interpolation=interpolation)]
    if options.crop == "center":
        return [_Resize(preprocessing), _CenterCrop(preprocessing)]
    return [_Resize(preprocessing), v2.RandomCrop(size, padding=options.padding or None, pad_if_needed=True)]


def _policy(options: AugmentOptions) -> list[Any]:
    if options.policy == "autoaugment":
        return [v2.AutoAugment()]
    if options.policy == "randaugment":
        return [v2.RandAugment(options.randaugment_operations, options.randaugment_magnitude)]
    if options.policy == "trivialaugment":
        return [v2.TrivialAugmentWide()]
    return []


def _appearance(options: AugmentOptions) -> list[Any]:
    """Color jitter, blur and sharpening; hue is never changed, because it separates fine-grained classes."""
    transforms: list[Any] = []
    if options.color_jitter:
        transforms.append(v2.ColorJitter(*[options.color_jitter] * 3))
    if options.blur:
        transforms.append(v2.RandomApply([v2.GaussianBlur(BLUR_WIDTH, sigma=(0.1, 5.0))], p=options.blur))
    if options.sharpen:
        transforms.append(v2.RandomAdjustSharpness(1.5, p=options.sharpen))
    return transforms


def _erase(options: AugmentOptions, preprocessing: Preprocessing) -> Any:
    if not options.erase:
        return None
    return v2.RandomErasing(options.erase, value=[255 * mean for mean in preprocessing.mean])
