"""The head's own attention as a saliency map."""

from __future__ import annotations

import torch
from torch import Tensor

from fgvc_cli import UsageError
from fgvc_cli.contracts import Classifier, Explainer
from fgvc_cli.options import NoOptions


class Native(Explainer):
    """Show the head's attention (`Head.attention`), which does not depend on the target class.

    Args:
        options: none.
    """

    class_specific = False

    def __init__(self, options: NoOptions) -> None:
        self.options = options

    @torch.no_grad()
    def explain(self, classifier: Classifier, images: Tensor, targets: Tensor) -> Tensor:  # noqa: ARG002
        """Return maps B,S,S in [0, 1] of images B,3,S,S.

        Raises:
            UsageError: the head has no attention on this backbone.
        """
        maps = classifier.head.attention(classifier, images)
        if maps is None:
            raise UsageError(
                f"native shows the head's own attention, and {type(classifier.head).__name__} on "
                f"{classifier.backbone.info.name} has none; use the explainer gradcam, which works with any head"
            )
        return maps

    def check(self, classifier: Classifier) -> None:
        """Explain a black image, to find out whether the head has attention.

        Raises:
            UsageError: the head has no attention on this backbone.
        """
        size = classifier.preprocessing.image_size
        black = torch.zeros(1, 3, size, size, device=classifier.device)
        self.explain(classifier, black, torch.zeros(1, dtype=torch.int64))
