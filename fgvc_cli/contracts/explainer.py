"""The explainer contract: which pixels a decision rests on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor

from fgvc_cli.contracts.classifier import Classifier


class Explainer(ABC):
    """Marks the pixels that a classifier's score for a class rests on.

    The host calls the component's target as `target(options=...)`. Occlusion and faithfulness scores are the host's
    and work with any explainer.
    """

    @abstractmethod
    def __init__(self, options: Any) -> None: ...

    @abstractmethod
    def explain(self, classifier: Classifier, images: Tensor, targets: Tensor) -> Tensor:
        """Return saliency maps B,H,W in [0, 1], at the size of the images.

        Args:
            classifier: in evaluation mode; it must be left as it was found, hooks and gradients removed.
            images: B,3,H,W, normalised.
            targets: B class indices to explain.
        """
