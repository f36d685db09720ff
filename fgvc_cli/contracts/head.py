"""The head contract: features in, scores and objectives out.

A head says what to minimize as data: a generator of objectives. The trainer runs the forward pass, the optimizer
decides how often, and neither needs to know the head. A head with one loss yields once:

    def objectives(self, images, targets):
        yield Objective(images, lambda scores: Loss(F.cross_entropy(scores, targets), scores))
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from torch import Tensor, nn

from fgvc_cli.contracts.backbone import BackboneInfo, Features, Reads


class Model(Protocol):
    """Backbone and head together, as a head's `predict` sees them."""

    def __call__(self, images: Tensor, part: str | None = None) -> Any:
        """Return the head's output for images B,3,H,W; `part` as in `Head.forward`."""


@dataclass(frozen=True)
class Loss:
    """What an objective's loss function returns.

    Attributes:
        value: the scalar to minimize.
        scores: B,K class scores for the training metrics, or None if this objective has none to show.
        parts: named parts of the loss (detached scalars) for the log.
    """

    value: Tensor
    scores: Tensor | None = None
    parts: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Objective:
    """One thing to minimize: one optimizer step.

    Attributes:
        images: B,3,H,W to put through the model.
        loss: from the head's output to a loss.
        part: the part of the head that is needed, passed to `Head.forward` and `Head.reads`; None: all of it.
        missing_grad: what parameters without a gradient do in this update: "skip" leaves them; "zero" moves them by
            momentum and weight decay, once they have had a gradient.
        name: for the log, if there are several.
    """

    images: Tensor
    loss: Callable[[Any], Loss]
    part: str | None = None
    missing_grad: Literal["skip", "zero"] = "skip"
    name: str = ""


@dataclass(frozen=True)
class PublishedState:
    """A state dict that a method's public code saved, taken apart for a head and its backbone.

    Attributes:
        head: the head's entries under its own names, in its own layout (a 1x1 convolution may be a linear layer
            here), of whatever sizes the file has. What the head has no place for keeps its name.
        backbone: the backbone's entries in the naming of timm or torchvision, without a prefix.
        classes: the number of classes K in the file.
        advice: what this head or its backbone would have to be to be the file's, with the settings that make it so,
            as far as the file tells: one line, or nothing if they are. The host shows it with the first entry that
            does not fit, or as a note if all fit.
        normalization: mean and standard deviation, by channel, of its images (pixel values in [0, 1]), if known.
    """

    head: Mapping[str, Tensor]
    backbone: Mapping[str, Tensor]
    classes: int
    advice: str = ""
    normalization: tuple[tuple[float, ...], tuple[float, ...]] | None = None


class Head(nn.Module, ABC):
    """Turns `Features` into class scores and says how it is trained.

    The host calls the component's target as `target(backbone=..., classes=..., options=...)`: a `BackboneInfo`, the
    number of classes K, and its options dataclass. It raises `UsageError` for a backbone that it cannot work with.
    """

    @abstractmethod
    def __init__(self, backbone: BackboneInfo, classes: int, options: Any) -> None:
        super().__init__()

    @abstractmethod
    def reads(self, part: str | None = None) -> Reads:
        """Say what that part of the head (None: all of it) reads of the backbone."""

    @abstractmethod
    def forward(self, features: Features, part: str | None = None) -> Any:
        """Compute the output of that part of the head: a tensor, or tensors in a (named) tuple, list or dict."""

    @abstractmethod
    def objectives(self, images: Tensor, targets: Tensor) -> Generator[Objective, Any, None]:
        """Yield what to minimize for a batch, one objective at a time.

        Each `yield` returns the detached output of that objective's first forward pass, once its update is done.
        Random choices are drawn with torch's own generators: those are what a resumed training puts back.

        Args:
            images: B,3,H,W.
            targets: B class indices (int64), or B,K probabilities (label smoothing, mixing);
                `torch.nn.functional.cross_entropy` takes both.
        """

    def predict(self, model: Model, images: Tensor) -> Tensor:
        """Return B,K scores (logits) whose softmax is the prediction.

        If it takes several passes through the model, the first is over the images as they are: explainers take
        their maps there.
        """
        scores: Tensor = model(images)
        return scores

    def cam_map(self) -> int | None:
        """Say where the score that the prediction uses is read: index of a map, or None for the embedding."""
        reads = self.reads()
        return None if reads.embedding or not reads.maps else reads.maps[-1]

    def attention(self, model: Model, images: Tensor) -> Tensor | None:  # noqa: ARG002
        """Return where the head itself looks, as maps B,S,S (float32) in [0, 1] without gradient; None: nowhere.

        Args:
            model: backbone and head, in evaluation mode.
            images: B,3,S,S, normalized.
        """
        return None

    def notes(self) -> list[str]:
        """Return lines a person should know before training, such as options clamped to this image size."""
        return []

    def published(self, state: Mapping[str, Tensor]) -> PublishedState | None:  # noqa: ARG002
        """Take apart a state dict that the public code of this head's method saved; None if it is not one.

        The host loads the parts: entries whose shape only the number of classes keeps from fitting stay random, and
        any other that does not fit is an error.

        Args:
            state: tensors by name, of a file that `--weights` names; without the prefixes that wrappers add.

        Raises:
            FgvcError: it is one, of a form that this head has no counterpart for.
        """
        return None
