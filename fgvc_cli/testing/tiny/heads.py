"""A small head that reads what it is told to."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fgvc_cli.contracts import BackboneInfo, Features, Head, Loss, Model, Objective, Reads


class TinyHead(Head):
    """Pools each map it reads, and classifies them together with the embedding if it reads that.

    Args:
        backbone: gives the widths.
        classes: the number of classes K.
        options: none.
        wanted: what it reads; None: the deepest map alone.
    """

    def __init__(self, backbone: BackboneInfo, classes: int, options: Any = None, wanted: Reads | None = None) -> None:
        super().__init__(backbone, classes, options)
        self.wanted = Reads((len(backbone.maps) - 1,)) if wanted is None else wanted
        width = sum(backbone.maps[index].channels for index in self.wanted.maps)
        self.dropout = nn.Dropout(0.1)
        self.classify = nn.Linear(width + backbone.embedding_width * self.wanted.embedding, classes)

    def reads(self, part: str | None = None) -> Reads:  # noqa: ARG002
        """Read what it was told to."""
        return self.wanted

    def forward(self, features: Features, part: str | None = None) -> Tensor:  # noqa: ARG002
        """Return scores B,K."""
        pooled = [features.maps[index].mean((2, 3)) for index in self.wanted.maps]
        if features.embedding is not None:
            pooled.append(features.embedding)
        scores: Tensor = self.classify(self.dropout(torch.cat(pooled, dim=1)))
        return scores

    def objectives(self, images: Tensor, targets: Tensor) -> Generator[Objective, Any, None]:
        """Yield the cross entropy of the scores."""
        yield Objective(images, lambda scores: Loss(F.cross_entropy(scores.float(), targets), scores))

    def attention(self, model: Model, images: Tensor) -> Tensor:
        """Return B,S,S in [0, 1]: how much each pixel moves the scores; the head has nothing better to show."""
        with torch.enable_grad():
            given = images.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(model(given).float().square().sum(), given)
        size = gradient.float().abs().amax(1)
        return size / size.amax((1, 2), keepdim=True).clamp_min(1e-12)
