"""The classifier: backbone, head, class names and preprocessing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from fgvc_cli.contracts.backbone import Backbone
from fgvc_cli.contracts.head import Head
from fgvc_cli.contracts.preprocessing import Preprocessing
from fgvc_cli.errors import UsageError


class Classifier(nn.Module):
    """A backbone and a head with their class names and preprocessing: everything that prediction needs.

    A run saves one, and `fgvc_cli.load` returns it.

    Args:
        backbone: built for the image size of `preprocessing`.
        head: built for that backbone and for the number of `class_names`.
        class_names: names of the classes, in the order of the scores.
        preprocessing: resizing, cropping and normalization of images.
    """

    def __init__(
        self, backbone: Backbone, head: Head, class_names: Sequence[str], preprocessing: Preprocessing
    ) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head
        self.class_names, self.preprocessing = tuple(class_names), preprocessing
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
            UsageError: the images do not have the size that the classifier was built for.
        """
        size = self.preprocessing.image_size
        if images.shape[-2:] != (size, size):
            height, width = images.shape[-2:]
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
