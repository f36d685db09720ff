"""The random version of preprocessing that training images get."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torchvision.transforms import v2

from fgvc_cli.config.train_options import AugmentOptions
from fgvc_cli.contracts.preprocessing import Preprocessing, to_tensor
from fgvc_cli.data.batch_augmentation.batch import Mixing
from fgvc_cli.data.batch_augmentation.draws import Draw
from fgvc_cli.data.batch_augmentation.pixel_ops import BLUR_WIDTH
from fgvc_cli.data.batch_augmentation.recording import recorded

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage


class Augmentation:
    """Turns an RGB image into a random uint8 tensor 3,S,S; normalization follows on the device.

    Crop and flip come first and the policy works on the small crop, unless `before_resize` asks for the order of the
    report: policy on the whole image, then resize, crop and flip. All randomness is drawn from torch's generator of
    the CPU.

    With where=device only the crop is done here; `draw` draws the rest, from the same random numbers in the same order,
    for `fgvc_cli.data.batch_augmentation` to do. Mixing with other images of the batch is always left to that.

    Args:
        options: what to do; where=auto is where=workers here (see `placed`).
        preprocessing: what evaluation does; size, resize, interpolation and mean color are taken from it.
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
        """Pixels of the short side that an image must keep when it is decoded smaller; None: all it has."""
        if self.options.before_resize:
            return None
        if self.options.crop == "resized":
            # the least crop has an area of scale_min and a side ratio of 3/4, and is not to be enlarged
            return math.ceil(self.preprocessing.image_size / math.sqrt(0.75 * self.options.scale_min))
        return self.preprocessing.resize

    def __call__(self, image: PILImage) -> Tensor:
        """Return a random uint8 tensor 3,S,S made of an RGB image."""
        tensor = to_tensor(self._on_image(image))
        return tensor if self._on_tensor is None else self._on_tensor(tensor)

    def begun(self, image: PILImage) -> tuple[Tensor, Draw]:
        """Return an RGB image as it leaves the worker, uint8 3,S,S, and what is left to do to it."""
        pixels = self(image) if self._later is None else self.crop(image)
        return pixels, self.draw()

    def crop(self, image: PILImage) -> Tensor:
        """Return a random crop of an RGB image, uint8 3,S,S, and nothing else done to it."""
        return to_tensor(self._crop(image))

    def draw(self) -> Draw:
        """Draw what is left to do to an image that was cropped (where=device) or augmented (where=workers)."""
        notes = () if self._later is None else recorded(self._later, self.preprocessing.image_size)
        return Draw(notes, self._mixing.draw())


def placed(options: AugmentOptions, device: torch.device) -> AugmentOptions:
    """Settle where=auto for the device of a training: on a CUDA GPU the device augments, else the workers do.

    Merging geometric operations is the device's, and asks for it; a policy before the resize is the workers'.
    """
    if options.where != "auto":
        return options
    gpu = device.type == "cuda" and not options.before_resize
    return replace(options, where="device" if gpu or options.merge_geometry else "workers")


class _Resize(torch.nn.Module):
    """Preprocessing's resize as a transform."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.preprocessing = preprocessing

    def forward(self, image: PILImage) -> PILImage:
        return self.preprocessing.resized(image)


def _crop(options: AugmentOptions, preprocessing: Preprocessing) -> list[Any]:
    size = preprocessing.image_size
    if options.crop == "resized":
        interpolation = v2.InterpolationMode(preprocessing.interpolation)
        return [v2.RandomResizedCrop(size, scale=(options.scale_min, 1.0), interpolation=interpolation)]
    if options.crop == "center":
        return [_Resize(preprocessing), v2.CenterCrop(size)]
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
    """Color jitter, blur and sharpening. Hue stays: it tells fine-grained classes apart."""
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
