"""Preprocessing of images for prediction: resize, crop and normalize, without augmentation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


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
