"""The classifier: preprocessing, backbone, head and class names; everything that prediction needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from fgvc_cli.contracts.backbone import Backbone
from fgvc_cli.contracts.head import Head
from fgvc_cli.errors import UsageError

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage


FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@dataclass(frozen=True)
class Preprocessing:
    """Resize and center-crop; normalization follows on the device (`Classifier.normalize`).

    Attributes:
        image_size: side of the square crop, pixels.
        resize: length the image is resized to before the crop, pixels.
        crop_mode: "center" resizes the short side and keeps the aspect ratio; "squash" resizes to a square.
        interpolation: "bilinear" or "bicubic".
        mean, std: normalization per channel, for pixel values in [0, 1].
    """

    image_size: int
    resize: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    crop_mode: Literal["center", "squash"] = "center"
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"

    def at_size(self, image_size: int) -> Preprocessing:
        """Return the same preprocessing for another image size; the crop keeps the same fraction of the image."""
        return replace(self, image_size=image_size, resize=round(self.resize * image_size / self.image_size))

    def resized_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the size (width, height) that an image of a size is resized to before the crop."""
        width, height = size
        if self.crop_mode == "squash":
            return self.resize, self.resize
        scale = self.resize / min(width, height)
        return max(self.resize, round(width * scale)), max(self.resize, round(height * scale))

    def resized(self, image: PILImage) -> PILImage:
        """Resize an RGB image for the crop."""
        size = self.resized_size(image.size)
        return image if size == image.size else image.resize(size, FILTERS[self.interpolation])

    def crop_box(self, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """Return the center crop (left, top, right, bottom) of a resized image of a size (width, height)."""
        left, top = (size[0] - self.image_size) // 2, (size[1] - self.image_size) // 2
        return left, top, left + self.image_size, top + self.image_size

    def __call__(self, image: PILImage) -> Tensor:
        """Resize and crop an RGB image to a uint8 tensor 3,S,S."""
        resized = self.resized(image)
        return to_tensor(resized.crop(self.crop_box(resized.size)))


def to_tensor(image: PILImage) -> Tensor:
    """Convert an RGB image to a uint8 tensor 3,H,W."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


class Classifier(nn.Module):
    """A backbone and a head with their class names and preprocessing: everything that prediction needs.

    A run saves one, and `fgvc_cli.load` returns it.

    Args:
        backbone: built for the image size of `preprocessing`.
        head: built for that backbone and for the number of `class_names`.
        class_names: names of the classes, in the order of the scores.
        preprocessing: resizing, cropping and normalization of images.

    Attributes:
        image_sizes: the image sizes that it takes; training may add to that of `preprocessing`.
    """

    def __init__(
        self, backbone: Backbone, head: Head, class_names: Sequence[str], preprocessing: Preprocessing
    ) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head
        self.class_names, self.preprocessing = tuple(class_names), preprocessing
        self.image_sizes: tuple[int, ...] = (preprocessing.image_size,)
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (preprocessing.mean, preprocessing.std))
        self.register_buffer("scale", 1 / (255 * std), persistent=False)
        self.register_buffer("shift", -mean / std, persistent=False)

    @property
    def device(self) -> torch.device:
        """The device of its weights."""
        return cast(Tensor, self.scale).device

    def forward(self, images: Tensor, part: str | None = None) -> Any:
        """Return the head's output for images B,3,S,S (normalized); `part` as in `Head.forward`.

        Raises:
            UsageError: the images do not have a size that the classifier takes.
        """
        height, width = images.shape[-2:]
        if height != width or height not in self.image_sizes:
            size = self.preprocessing.image_size
            raise UsageError(f"this classifier was built for images of {size}x{size} px, but got {height}x{width} px")
        return self.head(self.backbone(images, self.head.reads(part)), part)

    def normalize(self, pixels: Tensor) -> Tensor:
        """Normalize uint8 pixels B,3,S,S, on the classifier's device."""
        scale, shift = cast(Tensor, self.scale), cast(Tensor, self.shift)
        return pixels.to(scale.device, non_blocking=True) * scale + shift

    def scores(self, images: Tensor) -> Tensor:
        """Return scores (logits) B,K of normalized images B,3,S,S."""
        return self.head.predict(self, images)

    @torch.inference_mode()
    def probabilities(self, pixels: Tensor) -> Tensor:
        """Return class probabilities B,K of uint8 pixels B,3,S,S; switches to evaluation mode."""
        self.eval()
        return self.scores(self.normalize(pixels)).float().softmax(dim=1)
