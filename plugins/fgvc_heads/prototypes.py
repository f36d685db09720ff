"""The nearest class mean: cosine similarity to the mean embedding of each class.

Reference: Wang, Chao, Weinberger, van der Maaten 2019, SimpleShot, arXiv 1911.04623: embeddings are centered with the
mean of the training images and L2-normalized (CL2N) before the class means are taken (section 3).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fgvc_cli.contracts import BackboneInfo, Features, FittedHead, LabeledFeatures, Reads
from fgvc_heads.options import PrototypesOptions

TEMPERATURES = tuple(0.01 * 2 ** (k / 2) for k in range(11))
"""To choose from on validation data: 0.01 to 0.32."""

DEFAULT_TEMPERATURE = 0.05
"""Without validation data."""


class PrototypesHead(FittedHead):
    """Cosine similarities to the class means, divided by a temperature: embedding B,D to logits B,K.

    Args:
        backbone: gives D.
        classes: number of classes K.
        options: see `PrototypesOptions`.
    """

    resizable = ("prototypes",)
    prototypes: Tensor
    mean: Tensor
    temperature: Tensor

    def __init__(self, backbone: BackboneInfo, classes: int, options: PrototypesOptions) -> None:
        super().__init__(backbone, classes, options)
        self.options = options
        width = backbone.embedding_width
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("prototypes", F.normalize(torch.randn(classes, width), dim=1))  # K,D
        self.register_buffer("temperature", torch.tensor(options.temperature or DEFAULT_TEMPERATURE))

    def reads(self, part: str | None = None) -> Reads:  # noqa: ARG002
        """Read the embedding alone."""
        return Reads(embedding=True)

    def forward(self, features: Features, part: str | None = None) -> Tensor:  # noqa: ARG002
        """Return logits B,K."""
        assert features.embedding is not None
        return self._similarity(features.embedding) / self.temperature

    @torch.no_grad()
    def fit(self, train: LabeledFeatures, val: LabeledFeatures | None) -> list[str]:
        """Compute the class means; the temperature is the one with the lowest validation loss."""
        embedding: Any = train.features.embedding
        if self.options.center:
            self.mean.copy_(embedding.mean(dim=0))
        self.prototypes.copy_(self._means(embedding, train.labels, len(self.prototypes)))
        if self.options.temperature or val is None:
            return []
        similarity = self._similarity(val.features.embedding)  # type: ignore[arg-type]
        losses = {t: float(F.cross_entropy(similarity / t, val.labels)) for t in TEMPERATURES}
        best = min(losses, key=lambda t: losses[t])
        self.temperature.fill_(best)
        return [f"class means with `head.temperature={best:.3g}` (validation loss {losses[best]:.3f})"]

    @torch.no_grad()
    def add_classes(self, added: LabeledFeatures, classes: int) -> None:
        """Append the means of the new classes."""
        before = len(self.prototypes)
        new = self._means(added.features.embedding, added.labels - before, classes - before)
        self.prototypes = torch.cat([self.prototypes, new])

    def _similarity(self, embedding: Tensor) -> Tensor:
        return F.normalize(embedding.float() - self.mean, dim=1) @ self.prototypes.T

    def _means(self, embedding: Any, labels: Tensor, classes: int) -> Tensor:
        """Return the normalized mean K,D of the normalized embeddings of each class."""
        unit = F.normalize(embedding.float() - self.mean, dim=1)
        return F.normalize(unit.new_zeros(classes, unit.shape[1]).index_add_(0, labels, unit), dim=1)
