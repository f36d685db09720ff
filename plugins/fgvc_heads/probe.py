"""The linear probe: multinomial logistic regression on the frozen embedding."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fgvc_cli.contracts import BackboneInfo, Features, FittedHead, LabeledFeatures, Reads
from fgvc_cli.contracts.regression import GRID, fit_linear
from fgvc_heads.options import ProbeOptions


class ProbeHead(FittedHead):
    """One linear layer: embedding B,D to logits B,K, with the weights that logistic regression finds.

    Args:
        backbone: gives D.
        classes: number of classes K.
        options: see `ProbeOptions`.
    """

    def __init__(self, backbone: BackboneInfo, classes: int, options: ProbeOptions) -> None:
        super().__init__(backbone, classes, options)
        self.l2 = options.l2
        self.classifier = nn.Linear(backbone.embedding_width, classes)

    def reads(self, part: str | None = None) -> Reads:  # noqa: ARG002
        """Read the embedding alone."""
        return Reads(embedding=True)

    def forward(self, features: Features, part: str | None = None) -> Tensor:  # noqa: ARG002
        """Return logits B,K."""
        scores: Tensor = self.classifier(features.embedding)
        return scores

    @torch.no_grad()
    def fit(self, train: LabeledFeatures, val: LabeledFeatures | None) -> list[str]:
        """Fit the layer; the strength of the penalty is the one with the lowest validation loss."""
        held_out: tuple[Any, Any] = (None, None) if val is None else (val.features.embedding, val.labels)
        grid = (self.l2,) if self.l2 else GRID
        assert train.features.embedding is not None
        found = fit_linear(train.features.embedding, train.labels, self.classifier.out_features, *held_out, grid)
        self.classifier.weight.copy_(found.weight)
        self.classifier.bias.copy_(found.bias)
        why = "as set" if self.l2 else "the default without validation images"
        if found.val_loss:
            why = f"validation loss {found.val_loss[found.l2]:.3f}, the lowest of {len(found.val_loss)} strengths"
        return [f"logistic regression with `head.l2={found.l2:.3g}` ({why})"]
