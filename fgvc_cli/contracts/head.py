"""The head contract: class scores from features, and the objectives to train them with.

A head describes its training as data, a generator of objectives. The trainer runs the forward passes and the optimizer
decides how many, so neither depends on the head. A head with one loss yields once:

    def objectives(self, images, targets):
        yield Objective(images, lambda scores: Loss(F.cross_entropy(scores, targets), scores))
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from fgvc_cli.contracts.backbone import BackboneInfo, Features, LabeledFeatures, Reads
from fgvc_cli.errors import UsageError


class Model(Protocol):
    """Backbone and head together, as passed to `Head.predict`."""

    def __call__(self, images: Tensor, part: str | None = None) -> Any:
        """Return the head's output for images B,3,H,W; `part` as in `Head.forward`."""


@dataclass(frozen=True)
class Loss:
    """Result of an objective's loss function.

    Attributes:
        value: scalar to minimize.
        scores: class scores B,K for the training metrics; None if this objective has none.
        parts: named terms of the loss (detached scalars) for the log.
    """

    value: Tensor
    scores: Tensor | None = None
    parts: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Objective:
    """One objective to minimize, with one optimizer step.

    Attributes:
        images: model input B,3,H,W.
        loss: computes the loss from the head's output.
        part: part of the head to run, passed to `Head.forward` and `Head.reads`; None: all of it.
        missing_grad: how parameters without a gradient are updated: "skip" leaves them unchanged; "zero" treats the
            gradient as zero, so that momentum and weight decay apply, once they have had a gradient.
        name: name in the log, if there is more than one objective.
    """

    images: Tensor
    loss: Callable[[Any], Loss]
    part: str | None = None
    missing_grad: Literal["skip", "zero"] = "skip"
    name: str = ""


@dataclass(frozen=True)
class PublishedState:
    """A checkpoint of a method's public code, converted for a head and its backbone.

    Attributes:
        head: the head's entries, under its own names and in its own layout (a 1x1 convolution may be a linear layer
            here), of the sizes in the file. Entries that the head does not have keep their names.
        backbone: the backbone's entries, in the naming of timm or torchvision, without a prefix.
        classes: number of classes K in the file.
        advice: one line on the settings with which head and backbone would match the file; empty if they match. The
            host adds it to the error for the first mismatch, or logs it if everything fits.
        normalization: mean and standard deviation per channel of its images (pixel values in [0, 1]), if known.
    """

    head: Mapping[str, Tensor]
    backbone: Mapping[str, Tensor]
    classes: int
    advice: str = ""
    normalization: tuple[tuple[float, ...], tuple[float, ...]] | None = None


class Head(nn.Module, ABC):
    """Computes class scores from `Features` and defines the training objectives.

    The host calls the component's target as `target(backbone=..., classes=..., options=...)`, with a `BackboneInfo`,
    the number of classes K, and the options dataclass.

    Attributes:
        needs_batch_statistics: whether its losses depend on batch-norm statistics that the backbone computes from the
            batch; `train.freeze`, which fixes them, is then refused.
        distills: whether all its cross entropies are computed by `fgvc_cli.contracts.cross_entropy`, which a teacher at
            another temperature than 1, `train.class_weights` and `train.logit_adjustment` need.
        unchanged_images: whether its objectives and its prediction pass on the images that they get, unchanged, and
            read no pixels; with a frozen backbone and kept features, no images are then loaded.

    Raises:
        UsageError: the backbone is not supported.
    """

    needs_batch_statistics: bool = False
    distills: bool = False
    unchanged_images: bool = False

    @abstractmethod
    def __init__(self, backbone: BackboneInfo, classes: int, options: Any) -> None:
        super().__init__()

    @abstractmethod
    def reads(self, part: str | None = None) -> Reads:
        """Return what a part of the head (None: all of it) reads of the backbone."""

    @abstractmethod
    def forward(self, features: Features, part: str | None = None) -> Any:
        """Return the output of a part of the head: a tensor, or tensors in a (named) tuple, list or dict."""

    @abstractmethod
    def objectives(self, images: Tensor, targets: Tensor) -> Generator[Objective, Any, None]:
        """Yield the objectives of a batch, one at a time.

        Each `yield` returns the detached output of that objective's first forward pass, after its update. Random
        choices must use torch's global generators, which a resumed run restores.

        Args:
            images: B,3,H,W.
            targets: class indices B (int64), or probabilities B,K (label smoothing, mixup, a teacher);
                `torch.nn.functional.cross_entropy` accepts both. Heads with `distills` may also get rows that only
                `fgvc_cli.contracts.cross_entropy` understands.
        """

    def predict(self, model: Model, images: Tensor) -> Tensor:
        """Return the scores (logits) B,K of the prediction.

        If this takes several forward passes, the first must be over the unchanged images: explainers hook that one.
        """
        scores: Tensor = model(images)
        return scores

    def embedding_layer(self) -> nn.Linear | None:
        """Return the linear layer from embedding to scores; None without.

        `train.head_init=probe` initializes it, and the classifier of a weights file is loaded into it.
        """
        return None

    def cam_map(self) -> int | None:
        """Return the index of the map that the prediction's score is computed from; None: the embedding."""
        reads = self.reads()
        return None if reads.embedding or not reads.maps else reads.maps[-1]

    def attention(self, model: Model, images: Tensor) -> Tensor | None:  # noqa: ARG002
        """Return the head's own attention as maps B,S,S (float32) in [0, 1], without gradient; None if it has none.

        Args:
            model: backbone and head, in evaluation mode.
            images: B,3,S,S, normalized.
        """
        return None

    def notes(self) -> list[str]:
        """Return notes for the user, one line each, such as options clamped to this image size."""
        return []

    def published(self, state: Mapping[str, Tensor]) -> PublishedState | None:  # noqa: ARG002
        """Convert a checkpoint of this method's public code; None if it is not one.

        The host loads the result: entries that mismatch only in the number of classes stay random, any other mismatch
        is an error.

        Args:
            state: tensors by name, of the file given as `weights`, without the prefixes that wrappers add.

        Raises:
            FgvcError: it is such a checkpoint, of a variant that this head does not support.
        """
        return None


class FittedHead(Head):
    """A head that is fitted to the features of the training images at once, instead of trained by objectives.

    Its spec has `fitted=True`. The host freezes the backbone, computes what the head reads for every image (evaluation
    mode, no augmentation), and calls `fit`; epochs and optimizer are not used. What is fitted is kept in parameters or
    buffers, as in any head.

    Attributes:
        resizable: names of parameters or buffers whose shape depends on the images; loading a state dict resizes them.
    """

    resizable: tuple[str, ...] = ()

    @abstractmethod
    def fit(self, train: LabeledFeatures, val: LabeledFeatures | None) -> list[str]:
        """Fit the head, and return lines for the user, such as the chosen regularization.

        Args:
            train: features and labels of the training images, on the device of the head.
            val: the same of the validation images, to choose settings by; None if there are none.

        Raises:
            UsageError: the options do not fit the images.
        """

    def add_classes(self, added: LabeledFeatures, classes: int) -> None:  # noqa: ARG002
        """Add classes after those that the head was fitted to, without the images of the latter.

        Args:
            added: features and labels of images of the new classes; labels index the enlarged list of classes.
            classes: number of classes K, the new ones included.

        Raises:
            UsageError: the head cannot; the default.
        """
        raise UsageError(f"{type(self).__name__} must be fitted to all classes together")

    def objectives(self, images: Tensor, targets: Tensor) -> Generator[Objective, Any, None]:  # noqa: ARG002
        """Raise `UsageError`: there is nothing to train."""
        raise UsageError(f"{type(self).__name__} is fitted to features and has no objectives to train")

    def _load_from_state_dict(self, state_dict: Mapping[str, Tensor], prefix: str, *args: Any) -> None:
        for name in self.resizable:
            if (value := state_dict.get(prefix + name)) is not None:
                own = getattr(self, name)
                with torch.no_grad():
                    own.set_(own.new_empty(value.shape))
        super()._load_from_state_dict(state_dict, prefix, *args)
