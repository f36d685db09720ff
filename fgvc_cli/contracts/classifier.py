"""The classifier: backbone, head, class names and preprocessing, which is all that prediction needs."""

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
    """A backbone and a head that know their classes and how to look at a photograph.

    This is what a run saves, what `fgvc evaluate` and `fgvc predict` load, and what `fgvc_cli.load` returns.

    Args:
        backbone: built for the image size of `preprocessing`.
        head: built on that backbone for as many classes as there are names.
        class_names: in the order of the scores.
        preprocessing: how an image becomes what the backbone sees.
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
        """Where its weights are."""
        return cast(Tensor, self.scale).device

    def forward(self, images: Tensor, part: str | None = None) -> Any:
        """Return the head's output for images B,3,S,S (normalized); `part` as in `Head.forward`.

        Raises:
            UsageError: the images have not the size that backbone and head were built for.
        """
        size = self.preprocessing.image_size
        if images.shape[-2:] != (size, size):
            height, width = images.shape[-2:]
            raise UsageError(
                f"This classifier was built for images of {size}x{size} px and was given {height}x{width}."
            )
        return self.head(self.backbone(images, self.head.reads(part)), part)

    def normalize(self, pixels: Tensor) -> Tensor:
        """Turn uint8 pixels B,3,S,S into what the backbone expects, on the classifier's device."""
        scale, shift = cast(Tensor, self.scale), cast(Tensor, self.shift)
        return pixels.to(scale.device, non_blocking=True) * scale + shift

    def scores(self, images: Tensor) -> Tensor:
        """Return B,K scores (logits) of normalized images; their softmax is the prediction."""
        return self.head.predict(self, images)

    @torch.inference_mode()
    def probabilities(self, pixels: Tensor) -> Tensor:
        """Return B,K class probabilities of uint8 pixels B,3,S,S (see `preprocessing`); leaves training mode."""
        self.eval()
        return self.scores(self.normalize(pixels)).float().softmax(dim=1)
