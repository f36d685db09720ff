"""The deterministic resize before any augmentation, whose result the decode cache keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import PIL

from fgvc_cli.contracts.classifier import FILTERS, Preprocessing

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

    from fgvc_cli.data.augmentation import Augmentation

FORMAT = 1
"""Increase when the same file and resize give other pixels (`fgvc_cli.data.images`), or are stored in another way."""


@dataclass(frozen=True)
class CachedResize:
    """The part of preprocessing that gives the same pixels in every epoch.

    It is applied with and without a cache, so that both give the same batches.

    Attributes:
        crop_mode: "center" resizes the short side to `side` and keeps the aspect ratio; "squash" resizes to a square;
            "shrink" is "center" for larger images, and leaves smaller ones unchanged.
        side: pixels.
        interpolation: "bilinear" or "bicubic".
    """

    crop_mode: Literal["center", "squash", "shrink"]
    side: int
    interpolation: Literal["bilinear", "bicubic"]

    @classmethod
    def of_preprocessing(cls, preprocessing: Preprocessing) -> CachedResize:
        """Return the resize of `Preprocessing.resized`, which crops of fixed size are taken from."""
        return cls(preprocessing.crop_mode, preprocessing.resize, preprocessing.interpolation)

    @classmethod
    def of_augmentation(cls, augmentation: Augmentation) -> CachedResize | None:
        """Return the resize before an augmentation; None if it needs the whole image (`before_resize`)."""
        preprocessing, side = augmentation.preprocessing, augmentation.target_side
        if side is None:
            return None
        if augmentation.options.crop == "resized":
            return cls("shrink", side, preprocessing.interpolation)
        return cls.of_preprocessing(preprocessing)

    def size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the (width, height) that an image of (width, height) is resized to."""
        if self.crop_mode == "shrink" and min(size) <= self.side:
            return size
        crop_mode: Literal["center", "squash"] = "squash" if self.crop_mode == "squash" else "center"
        return Preprocessing(self.side, self.side, (0.0,) * 3, (1.0,) * 3, crop_mode).resized_size(size)

    def __call__(self, image: PILImage) -> PILImage:
        """Resize an RGB image."""
        size = self.size(image.size)
        return image if size == image.size else image.resize(size, FILTERS[self.interpolation])

    @property
    def description(self) -> str:
        """Size and interpolation in words: "short side 256 px, bilinear"."""
        size = {
            "center": f"short side {self.side} px",
            "squash": f"{self.side} x {self.side} px",
            "shrink": f"short side at most {self.side} px",
        }
        return f"{size[self.crop_mode]}, {self.interpolation}"

    @property
    def identity(self) -> str:
        """Everything that determines the pixels; every Pillow release brings its own decoders."""
        return f"{self.description}, format {FORMAT}, Pillow {PIL.__version__}"
