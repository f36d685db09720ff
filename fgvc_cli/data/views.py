"""Several crops of an image at one or more image sizes, for test-time augmentation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torchvision.transforms.functional import five_crop

from fgvc_cli.contracts import Preprocessing
from fgvc_cli.contracts.classifier import to_tensor

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage


@dataclass(frozen=True)
class Crops:
    """The crops to take of each image.

    Attributes:
        sizes: preprocessing for each image size.
        corners: whether to take the four corners of the resized image in addition to the center crop.
    """

    sizes: tuple[Preprocessing, ...]
    corners: bool = False

    def empty(self, images: int) -> list[Tensor]:
        """Return uninitialized uint8 pixels B,V,3,S,S for each image size."""
        count = 5 if self.corners else 1
        sides = [preprocessing.image_size for preprocessing in self.sizes]
        return [torch.empty(images, count, 3, side, side, dtype=torch.uint8) for side in sides]

    def of(self, resized: PILImage, preprocessing: Preprocessing) -> Tensor:
        """Return the crops V,3,S,S (uint8) of an image that was resized for that preprocessing, the center first."""
        crops = [resized.crop(preprocessing.crop_box(resized.size))]
        if self.corners:
            crops += five_crop(resized, [preprocessing.image_size])[:4]
        return torch.stack([to_tensor(crop) for crop in crops])
