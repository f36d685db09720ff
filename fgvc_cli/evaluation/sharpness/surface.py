"""The loss of a classifier on some images, as a function of its weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fgvc_cli.contracts import Split
from fgvc_cli.errors import FgvcError
from fgvc_cli.evaluation.computing import ReadyClassifier
from fgvc_cli.evaluation.scoring import scores_of
from fgvc_cli.evaluation.sharpness.directions import Direction

KEPT_BYTES = 2 * 2**30
"""Up to so many bytes of pixels are kept on the device; more stay in the host's memory and are copied in every pass."""


@dataclass(frozen=True)
class LossSurface:
    """The mean cross entropy of images at whatever weights the classifier has.

    The loss is that of the scores which prediction uses, in evaluation mode (batch norm with its running statistics),
    of images as prediction sees them: nothing is augmented, no label is smoothed.

    Attributes:
        ready: the classifier, in evaluation mode.
        batches: pixels (uint8 B,3,S,S) and labels (int64 B, on the device).
        on_images: called with a number of images each time they have gone through.
    """

    ready: ReadyClassifier
    batches: Sequence[tuple[Tensor, Tensor]]
    on_images: Callable[[int], object]

    def __len__(self) -> int:
        return sum(len(labels) for _, labels in self.batches)

    @torch.inference_mode()
    def losses(self) -> Tensor:
        """Return the cross entropy of each image in nats, float32 N on the device; nothing waits for the device."""
        losses = []
        for pixels, labels in self.batches:
            losses.append(F.cross_entropy(self._scores(pixels), labels, reduction="none"))
            self.on_images(len(labels))
        return torch.cat(losses)

    def gradient(self, parameters: Sequence[Tensor], passes: int) -> Direction:
        """Return the gradient of the mean loss for each of the parameters; 0 where the loss does not reach.

        Where the prediction makes a hard choice, such as a region that is cut out, the choice is held fixed.

        Args:
            parameters: of the classifier.
            passes: what it costs in forward passes, for `on_images`.

        Raises:
            FgvcError: the scores of the classifier's prediction carry no gradient.
        """
        images, gradient = len(self), [torch.zeros_like(parameter) for parameter in parameters]
        for pixels, labels in self.batches:
            with torch.enable_grad():
                scores = self._scores(pixels)
                if not scores.requires_grad:
                    raise FgvcError(f"{self.ready.run}: its head predicts scores without a gradient to climb along.")
                loss = F.cross_entropy(scores, labels, reduction="sum") / images
            found = torch.autograd.grad(loss, parameters, allow_unused=True)
            reached = [(total, part) for total, part in zip(gradient, found, strict=True) if part is not None]
            torch._foreach_add_(*map(list, zip(*reached, strict=True)))
            self.on_images(passes * len(labels))
        return gradient

    def _scores(self, pixels: Tensor) -> Tensor:
        return scores_of(self.ready.classifier, pixels, self.ready.precision)


def means(losses: Sequence[Tensor]) -> np.ndarray:
    """Return the means of losses N, one a place, as float64; the one time that the device is waited for."""
    return torch.stack(list(losses)).cpu().numpy().mean(axis=1, dtype=np.float64)


def read_images(
    ready: ReadyClassifier, split: Split, on_images: Callable[[int], object]
) -> tuple[list[tuple[Tensor, Tensor]], dict[str, str]]:
    """Read a split's images once, and keep them as batches for `LossSurface`.

    Args:
        ready: preprocesses them; its device takes them if they fit `KEPT_BYTES`.
        split: labels index the classifier's classes.
        on_images: called with a number of images each time they are read.

    Returns:
        The batches, and why images could not be read, by key.

    Raises:
        FgvcError: none can be read.
    """
    device, side = ready.classifier.device, ready.classifier.preprocessing.image_size
    place = device if len(split) * 3 * side**2 <= KEPT_BYTES else torch.device("cpu")
    loader, batches = ready.loader(split), []
    for batch in loader:
        batches.append((batch.pixels.to(place), batch.labels.to(device)))
        on_images(len(batch.labels))
    loader.close()  # the processes that read have nothing more to do
    if not batches:
        raise FgvcError(f"{ready.run}: none of the {len(split)} images ({split.name}) can be read.")
    return batches, {key: failure.reason for key, failure in loader.failures.items()}
