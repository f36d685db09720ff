"""The explainer contract: saliency maps for a classifier's scores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor

from fgvc_cli.contracts.classifier import Classifier


class Explainer(ABC):
    """Computes saliency maps for a classifier's score of a class.

    The host calls the component's target as `target(options=...)`. Occlusion and faithfulness metrics are computed by
    the host for any explainer.

    Attributes:
        class_specific: whether maps depend on the target class; the host compares classes only with those that do.
    """

    class_specific: bool = True

    @abstractmethod
    def __init__(self, options: Any) -> None: ...

    @abstractmethod
    def explain(self, classifier: Classifier, images: Tensor, targets: Tensor) -> Tensor:
        """Return saliency maps B,S,S in [0, 1] (float32, on the device of the images).

        The map of an image does not depend on the rest of the batch. There are no side effects: hooks are removed even
        if an error occurs, no parameter gets a `.grad`, `requires_grad` and training modes are restored, and nothing is
        kept between calls. The host calls it outside of `torch.inference_mode`, with or without gradients enabled,
        possibly under autocast.

        Args:
            classifier: in evaluation mode.
            images: B,3,S,S, normalized.
            targets: B class indices (int64) to explain.
        """

    def check(self, classifier: Classifier) -> None:  # noqa: B027
        """Check that this explainer supports a classifier; called before the first image.

        Raises:
            UsageError: it does not; says why and what to use instead.
        """

    def notes(self, classifier: Classifier) -> list[str]:  # noqa: ARG002
        """Return notes for the user, one line each, on how this classifier is explained."""
        return []
