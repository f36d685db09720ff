"""The k nearest training images by cosine similarity vote.

Reference: Wu, Xiong, Yu, Lin 2018, arXiv 1805.01978, section 3.4: neighbor i of class c adds exp(s_i / T) to the weight
of c, with the cosine similarity s_i.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fgvc_cli.contracts import BackboneInfo, Features, FittedHead, LabeledFeatures, Reads
from fgvc_cli.errors import UsageError
from fgvc_heads.options import KnnOptions

SMOOTHING = 0.01
"""Fraction of the probability spread over all classes, so that a class without a neighbor has a finite score."""


class KnnHead(FittedHead):
    """Log of the classes' shares of the vote: embedding B,D to logits B,K.

    The training embeddings are its state, and part of the model file.

    Args:
        backbone: gives D.
        classes: number of classes K.
        options: see `KnnOptions`.
    """

    resizable = ("bank", "labels")
    bank: Tensor
    labels: Tensor
    mean: Tensor

    def __init__(self, backbone: BackboneInfo, classes: int, options: KnnOptions) -> None:
        super().__init__(backbone, classes, options)
        self.options, self.classes = options, classes
        width = backbone.embedding_width
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("bank", F.normalize(torch.randn(classes, width), dim=1))  # N,D
        self.register_buffer("labels", torch.arange(classes))  # N

    def reads(self, part: str | None = None) -> Reads:  # noqa: ARG002
        """Read the embedding alone."""
        return Reads(embedding=True)

    def forward(self, features: Features, part: str | None = None) -> Tensor:  # noqa: ARG002
        """Return logits B,K."""
        similarity = self._unit(features.embedding) @ self.bank.T
        nearest, indices = similarity.topk(min(self.options.k, len(self.bank)), dim=1)
        shares = (nearest / self.options.temperature).softmax(dim=1)
        votes = shares.new_zeros(shares.shape[0], self.classes).scatter_add(1, self.labels[indices], shares)
        return ((1 - SMOOTHING) * votes + SMOOTHING / self.classes).log()

    @torch.no_grad()
    def fit(self, train: LabeledFeatures, val: LabeledFeatures | None) -> list[str]:  # noqa: ARG002
        """Keep the training embeddings, centered and normalized."""
        images = len(train.labels)
        if self.options.k > images:
            raise UsageError(f"`head.k={self.options.k}` is more than the {images} training images")
        embedding: Any = train.features.embedding
        if self.options.center:
            self.mean.copy_(embedding.mean(dim=0))
        self.bank, self.labels = self._unit(embedding), train.labels.clone()
        return []

    @torch.no_grad()
    def add_classes(self, added: LabeledFeatures, classes: int) -> None:
        """Append the embeddings of the new classes."""
        self.bank = torch.cat([self.bank, self._unit(added.features.embedding)])
        self.labels = torch.cat([self.labels, added.labels])
        self.classes = classes

    def _unit(self, embedding: Any) -> Tensor:
        return F.normalize(embedding.float() - self.mean, dim=1)
