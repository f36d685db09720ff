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
        """Return saliency maps B,S,S (float32, on the images' device) in [0, 1], one for each image alone.

        It leaves no trace: hooks are removed whatever happens, no parameter gets a gradient, `requires_grad` and
        training modes are as found, and nothing is kept from call to call. The host calls it outside of
        `torch.inference_mode`, with or without gradients enabled, perhaps under autocast.

        Args:
            classifier: in evaluation mode.
            images: B,3,S,S, normalized.
            targets: B class indices (int64) to explain.
        """

    def check(self, classifier: Classifier) -> None:  # noqa: B027
        """Raise `UsageError`, saying why and what would work, if this explainer cannot explain that classifier.

        The host asks before it shows the first image. By default any classifier will do.
        """

    def notes(self, classifier: Classifier) -> list[str]:  # noqa: ARG002
        """Return lines a person should know of how it explains that classifier."""
        return []
