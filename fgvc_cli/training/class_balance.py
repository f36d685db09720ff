"""Losses for classes of different size: class weights and logit adjustment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fgvc_cli.config.train_options import TrainOptions
from fgvc_cli.contracts import Classifier
from fgvc_cli.contracts.targets import with_offset
from fgvc_cli.data.staging import probabilities
from fgvc_cli.errors import UsageError


@dataclass(frozen=True)
class ClassBalance:
    """Changes the targets of batches so that the loss depends on the number of training images of each class.

    Attributes:
        weights: K, factor of the loss of each class, with mean 1 over the training images; None: 1.
        offset: K, added to the logits in the loss; None: 0.
    """

    weights: Tensor | None = None
    offset: Tensor | None = None

    def weighted(self, targets: Tensor) -> Tensor:
        """Return targets, indices B or probabilities B,K, as rows B,K times the class weights."""
        if self.weights is None:
            return targets
        rows = probabilities(targets, len(self.weights), 0.0) if targets.ndim == 1 else targets
        return rows * self.weights

    def adjusted(self, targets: Tensor) -> Tensor:
        """Return targets, of any form, with the offset of the logits."""
        return targets if self.offset is None else with_offset(targets, self.offset)


def class_balance(
    options: TrainOptions, classifier: Classifier, head_name: str, labels: Sequence[int] | np.ndarray
) -> ClassBalance:
    """Return the class balance of a training from the labels of its images, on the device of the classifier.

    Raises:
        UsageError: the head (called `head_name`) does not compute its losses with `fgvc_cli.contracts.cross_entropy`.
    """
    weighted, tau = options.class_weights != "none", options.logit_adjustment
    if not weighted and not tau:
        return ClassBalance()
    if not classifier.head.distills:
        setting = f"class_weights={options.class_weights}" if weighted else f"logit_adjustment={tau:g}"
        raise UsageError(
            f"`train.{setting}`: head {head_name} does not compute its losses with `cross_entropy` (`Head.distills`); "
            "use another head, or balance the images (`train.sampling=class`)"
        )
    counts = torch.bincount(torch.as_tensor(np.asarray(labels)), minlength=len(classifier.class_names)).double()
    if weighted:
        power = 1.0 if options.class_weights == "inverse" else 0.5
        return ClassBalance(weights=class_weights(counts, power).float().to(classifier.device))
    return ClassBalance(offset=(tau * log_prior(counts)).float().to(classifier.device))


def class_weights(counts: Tensor, power: float) -> Tensor:
    """Return weights K proportional to counts**-power, with mean 1 over the images.

    A class without images gets the weight of one with a single image; label smoothing and mixing may ask for it.
    """
    inverse = counts.clamp(min=1) ** -power
    return inverse * counts.sum() / (counts * inverse).sum()


def log_prior(counts: Tensor) -> Tensor:
    """Return the log frequency of each class, K; a class without images counts as one with a single image."""
    present = counts.clamp(min=1)
    return (present / present.sum()).log()
