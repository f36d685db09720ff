"""What the cache stores of an image: its size and how it was resized."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import PIL

from fgvc_cli.contracts.preprocessing import FILTERS, Preprocessing

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

    from fgvc_cli.data.augmentation import Augmentation

DATA = "data.mdb"
"""The file of a cache that LMDB keeps the images in."""

FORMAT = 1
"""To be raised when the same file and rendition give other pixels (`fgvc_cli.data.images`), or are stored otherwise."""


@dataclass(frozen=True)
class CachedResize:
    """An image as it is before anything random is done to it: the part that is the same in every epoch.

    Whoever needs it makes it, whether or not it is kept: a run has the same pixels with and without a store.

    Attributes:
        crop_mode: "center" resizes the short side to `side` and keeps the shape; "squash" makes a square; "shrink" is
            "center" for images that are larger, and leaves others as they are.
        side: pixels.
        interpolation: "bilinear" or "bicubic".
    """

    crop_mode: Literal["center", "squash", "shrink"]
    side: int
    interpolation: Literal["bilinear", "bicubic"]

    @classmethod
    def resized(cls, preprocessing: Preprocessing) -> CachedResize:
        """Return what a crop of fixed size is taken from: exactly `Preprocessing.resized`."""
        return cls(preprocessing.crop_mode, preprocessing.resize, preprocessing.interpolation)

    @classmethod
    def augmented(cls, augmentation: Augmentation) -> CachedResize | None:
        """Return what an augmentation begins with; None if that is the whole photograph (`before_resize`)."""
        preprocessing, side = augmentation.preprocessing, augmentation.target_side
        if side is None:
            return None
        if augmentation.options.crop == "resized":
            return cls("shrink", side, preprocessing.interpolation)
        return cls.resized(preprocessing)

    def size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the (width, height) that an image of (width, height) has in this rendition."""
        if self.crop_mode == "shrink" and min(size) <= self.side:
            return size
        crop_mode: Literal["center", "squash"] = "squash" if self.crop_mode == "squash" else "center"
        return Preprocessing(self.side, self.side, (0.0,) * 3, (1.0,) * 3, crop_mode).resized_size(size)

    def __call__(self, image: PILImage) -> PILImage:
        """Resize an RGB image."""
        size = self.size(image.size)
        return image if size == image.size else image.resize(size, FILTERS[self.interpolation])

    @property
    def words(self) -> str:
        """The rendition as a person reads it: "short side 256 px, bilinear"."""
        size = {
            "center": f"short side {self.side} px",
            "squash": f"{self.side} x {self.side} px",
            "shrink": f"short side at most {self.side} px",
        }
        return f"{size[self.crop_mode]}, {self.interpolation}"

    @property
    def identity(self) -> str:
        """All that decides the pixels. Each Pillow brings decoders of its own, the lesser versions too."""
        return f"{self.words}, format {FORMAT}, Pillow {PIL.__version__}"
