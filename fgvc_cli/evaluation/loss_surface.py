"""The loss of a classifier as a function of its weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fgvc_cli.contracts import Split
from fgvc_cli.errors import FgvcError
from fgvc_cli.scoring.model import ReadyClassifier
from fgvc_cli.scoring.scores import scores_of


class MovableWeights:
    """The parameters of a network that training moves, and where they were at first.

    Attributes:
        parameters: of the network, in its order.
        origin: copies of them.
    """

    def __init__(self, network: nn.Module) -> None:
        self.parameters: list[Tensor] = [p for p in network.parameters() if p.requires_grad]
        self.origin = [parameter.detach().clone() for parameter in self.parameters]

    @torch.no_grad()
    def move(self, *steps: tuple[float, Direction]) -> None:
        """Go from where the weights were at first by so much along each direction; without a step, back there.

        Nothing adds up: each place is computed from the copies, and going back is copying them.
        """
        torch._foreach_copy_(self.parameters, self.origin)
        for length, direction in steps:
            torch._foreach_add_(self.parameters, direction, alpha=length)


@contextmanager
def movable(network: nn.Module) -> Iterator[MovableWeights]:
    """Let a network's weights be moved; afterwards, whatever happened, each has the bits it had."""
    weights = MovableWeights(network)
    try:
        yield weights
    finally:
        weights.move()


Direction = list[Tensor]

TINY = 1e-12
"""Added to norms that may be 0."""


def norm(tensors: Sequence[Tensor]) -> Tensor:
    """Return the L2 norm over all entries of all tensors, a scalar on their device."""
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(tensors))))


@torch.no_grad()
def ascent(gradient: Direction) -> Direction:
    """Return g / ||g||, one norm over all parameters: where the loss rises most, to first order.

    SAM climbs along it by rho (Foret et al. 2021, arXiv 2010.01412, equation 2).
    """
    return torch._foreach_div(gradient, norm(gradient) + TINY)  # type: ignore[return-value]


@torch.no_grad()
def adaptive_ascent(gradient: Direction, weights: Sequence[Tensor]) -> Direction:
    """Return w^2 g / || |w| g ||: where the loss rises most, to first order, if steps are measured relative to weights.

    ASAM climbs along it by its rho (Kwon et al. 2021, arXiv 2102.11600, section 3). The rise does not change if one
    layer's weights are multiplied by a number and the next one's divided by it.
    """
    scaled = torch._foreach_mul(gradient, torch._foreach_abs(list(weights)))
    length = norm(scaled) + TINY
    torch._foreach_mul_(scaled, torch._foreach_abs(list(weights)))
    torch._foreach_div_(scaled, length)
    return scaled  # type: ignore[return-value]


@torch.no_grad()
def random_direction(weights: Sequence[Tensor], generator: torch.Generator) -> Direction:
    """Return a direction drawn evenly from the sphere of norm 1.

    Args:
        weights: give shapes, device and memory format.
        generator: on the CPU, so that every device gets the same direction.
    """
    drawn = _normal(weights, generator)
    torch._foreach_div_(drawn, norm(drawn))
    return drawn


@torch.no_grad()
def filter_normalized_direction(weights: Sequence[Tensor], generator: torch.Generator) -> Direction:
    """Return a random direction whose filters each have the norm of the network's own filter.

    d_ij <- d_ij / ||d_ij|| * ||w_ij|| for the j-th filter of the i-th layer (Li et al. 2018, Visualizing the Loss
    Landscape of Neural Nets, arXiv 1712.09913, section 4): a plane of such directions looks alike for networks that
    differ by the scale of their weights alone. A filter is what makes one output: a slice of the first dimension.
    Parameters of one dimension, biases and those of norms, stay where they are, as in the authors' code.

    Args:
        weights: as they are at the minimum.
        generator: on the CPU, so that every device gets the same direction.
    """
    drawn = _normal(weights, generator)
    for direction, weight in zip(drawn, weights, strict=True):
        if weight.dim() <= 1:
            direction.zero_()
        else:
            across = tuple(range(1, weight.dim()))
            own, random = (torch.linalg.vector_norm(t, dim=across, keepdim=True) for t in (weight, direction))
            direction.mul_(own / (random + TINY))
    return drawn


def _normal(weights: Sequence[Tensor], generator: torch.Generator) -> Direction:
    return [
        torch.empty_like(weight).copy_(torch.randn(weight.shape, generator=generator, dtype=torch.float32))
        for weight in weights
    ]


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
