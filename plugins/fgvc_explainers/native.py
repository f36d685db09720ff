"""The head's own attention."""

from __future__ import annotations

import torch
from torch import Tensor

from fgvc_cli import UsageError
from fgvc_cli.contracts import Classifier, Explainer
from fgvc_cli.options import NoOptions


class Native(Explainer):
    """Shows where the head itself looks (`Head.attention`), which is the same whatever the target class.

    Args:
        options: none.
    """

    def __init__(self, options: NoOptions) -> None:
        self.options = options

    def explain(self, classifier: Classifier, images: Tensor, targets: Tensor) -> Tensor:  # noqa: ARG002
        """Return maps B,S,S in [0, 1] of images B,3,S,S.

        Raises:
            UsageError: as `check`.
        """
        return self._attention(classifier, images)

    def check(self, classifier: Classifier) -> None:
        """Refuse a head that has no attention of its own, or none on its backbone: a black image tells.

        Raises:
            UsageError: it is so.
        """
        size = classifier.preprocessing.image_size
        self._attention(classifier, torch.zeros(1, 3, size, size, device=classifier.device))

    @torch.no_grad()
    def _attention(self, classifier: Classifier, images: Tensor) -> Tensor:
        maps = classifier.head.attention(classifier, images)
        if maps is None:
            raise UsageError(
                f"native shows the head's own attention, and {type(classifier.head).__name__} on "
                f"{classifier.backbone.info.name} has none: use gradcam, which needs none."
            )
        return maps
