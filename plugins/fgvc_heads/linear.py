"""The linear head: one linear layer on the backbone's pooled embedding, the baseline of every comparison."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from torch import Tensor, nn

from fgvc_cli.contracts import BackboneInfo, Features, Head, Loss, Objective, Reads, cross_entropy
from fgvc_heads.options import LinearOptions


class LinearHead(Head):
    """Dropout and one linear layer: embedding B,D to logits B,K.

    It reads the embedding that the model's own classifier would read, never a pooled last map: in EfficientNet, Swin
    and ViT a convolution, a norm or a class token lies between the two.

    Args:
        backbone: gives D.
        classes: number of classes K.
        options: see `LinearOptions`.
    """

    distills = True
    unchanged_images = True

    def __init__(self, backbone: BackboneInfo, classes: int, options: LinearOptions) -> None:
        super().__init__(backbone, classes, options)
        self.dropout = nn.Dropout(options.dropout)
        self.classifier = nn.Linear(backbone.embedding_width, classes)
        # Small weights make the initial logits nearly equal, so the first steps do not disturb pretrained features.
        nn.init.trunc_normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)

    def reads(self, part: str | None = None) -> Reads:  # noqa: ARG002
        """Read the embedding alone."""
        return Reads(embedding=True)

    def forward(self, features: Features, part: str | None = None) -> Tensor:  # noqa: ARG002
        """Return logits B,K."""
        scores: Tensor = self.classifier(self.dropout(features.embedding))
        return scores

    def embedding_layer(self) -> nn.Linear:
        """Return the layer."""
        return self.classifier

    def objectives(self, images: Tensor, targets: Tensor) -> Generator[Objective, Any, None]:
        """Yield the cross entropy of the logits, in float32 at least."""

        def loss(scores: Tensor) -> Loss:
            return Loss(cross_entropy(scores, targets), scores)

        yield Objective(images, loss)
