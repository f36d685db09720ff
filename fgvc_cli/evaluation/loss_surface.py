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
    """The trainable parameters of a network, and their original values.

    Attributes:
        parameters: of the network, in its order.
        origin: copies of their original values.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self.parameters: list[Tensor] = [p for p in network.parameters() if p.requires_grad]
        self.origin = [parameter.detach().clone() for parameter in self.parameters]

    @torch.no_grad()
    def move(self, *steps: tuple[float, Direction]) -> None:
        """Set the weights to their original values plus a multiple of each direction; without steps, restore them.

        Errors do not accumulate, because each position is computed from the copies.
        """
        torch._foreach_copy_(self.parameters, self.origin)
        for length, direction in steps:
            torch._foreach_add_(self.parameters, direction, alpha=length)
        drop_cached(self._network)


def drop_cached(network: nn.Module) -> None:
    """Drop what modules computed from their weights and keep until the next `eval()`; modes stay as they are.

    timm's LeViT, TinyViT, EfficientFormer and EfficientViT-M keep their attention biases in evaluation mode: moved
    weights would have no effect there, and a gradient would end at a tensor kept by a pass without gradients.
    """
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    for module, training in modes:
        module.training = training


@contextmanager
def movable(network: nn.Module) -> Iterator[MovableWeights]:
    """Move the weights of a network within the block; they are restored bit for bit, also after an error."""
    weights = MovableWeights(network)
    try:
        yield weights
    finally:
        weights.move()


Direction = list[Tensor]

TINY = 1e-12
"""Added to norms, which may be 0."""


def norm(tensors: Sequence[Tensor]) -> Tensor:
    """Return the L2 norm over all entries of all tensors, a scalar on their device."""
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(tensors))))


@torch.no_grad()
def ascent(gradient: Direction) -> Direction:
    """Return g / ||g||, the direction of steepest ascent to first order, with one norm over all parameters.

    Reference: Foret et al. (2021), SAM, https://arxiv.org/abs/2010.01412, equation 2.
    """
    return torch._foreach_div(gradient, norm(gradient) + TINY)  # type: ignore[return-value]


@torch.no_grad()
def adaptive_ascent(gradient: Direction, weights: Sequence[Tensor]) -> Direction:
    """Return w^2 g / || |w| g ||, the direction of steepest ascent to first order for steps relative to the weights.

    It is invariant to multiplying the weights of one layer and dividing those of the next by the same number.

    Reference: Kwon et al. (2021), ASAM, https://arxiv.org/abs/2102.11600, section 3.
    """
    scaled = torch._foreach_mul(gradient, torch._foreach_abs(list(weights)))
    length = norm(scaled) + TINY
    torch._foreach_mul_(scaled, torch._foreach_abs(list(weights)))
    torch._foreach_div_(scaled, length)
    return scaled  # type: ignore[return-value]


@torch.no_grad()
def random_direction(weights: Sequence[Tensor], generator: torch.Generator) -> Direction:
    """Sample a direction uniformly from the sphere of norm 1.

    Args:
        weights: for shapes, device and memory format.
        generator: on the CPU, so that the direction is the same on every device.
    """
    drawn = _normal(weights, generator)
    torch._foreach_div_(drawn, norm(drawn))
    return drawn


@torch.no_grad()
def filter_normalized_direction(weights: Sequence[Tensor], generator: torch.Generator) -> Direction:
    """Sample a direction whose filters have the norms of the network's own filters.

    d_ij <- d_ij / ||d_ij|| * ||w_ij|| for the j-th filter of the i-th layer. A plane of such directions is invariant to
    the scale of the weights. A filter is a slice of the first dimension. One-dimensional parameters (biases, norms) do
    not move, as in the authors' code.

    Args:
        weights: at the minimum.
        generator: on the CPU, so that the direction is the same on every device.

    Reference: Li et al. (2018), Visualizing the Loss Landscape of Neural Nets, https://arxiv.org/abs/1712.09913,
    section 4.
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
"""Maximum size of the pixels kept on the device; larger sets stay in host memory and are copied in every pass."""


@dataclass(frozen=True)
class LossSurface:
    """The mean cross entropy of images as a function of the classifier's weights.

    It is the loss of the scores used for prediction, in evaluation mode (batch norm with running statistics), without
    augmentation and label smoothing.

    Attributes:
        ready: the classifier, in evaluation mode.
        batches: pixels (uint8 B,3,S,S) and labels (int64 B, on the device).
        on_images: called with the number of images of each forward pass.
    """

    ready: ReadyClassifier
    batches: Sequence[tuple[Tensor, Tensor]]
    on_images: Callable[[int], object]

    def __len__(self) -> int:
        return sum(len(labels) for _, labels in self.batches)

    @torch.inference_mode()
    def losses(self) -> Tensor:
        """Return the cross entropy of each image in nats, float32 N on the device, without synchronizing with it."""
        losses = []
        for pixels, labels in self.batches:
            losses.append(F.cross_entropy(self._scores(pixels), labels, reduction="none"))
            self.on_images(len(labels))
        return torch.cat(losses)

    def gradient(self, parameters: Sequence[Tensor], passes: int) -> Direction:
        """Return the gradient of the mean loss with respect to the parameters, 0 for those it does not depend on.

        Hard choices of the prediction, such as a cropped region, are held fixed.

        Args:
            parameters: of the classifier.
            passes: its cost in forward passes, for `on_images`.

        Raises:
            FgvcError: the scores of the prediction have no gradient.
        """
        images, gradient = len(self), [torch.zeros_like(parameter) for parameter in parameters]
        for pixels, labels in self.batches:
            drop_cached(self.ready.classifier)
            with torch.enable_grad():
                scores = self._scores(pixels)
                if not scores.requires_grad:
                    raise FgvcError(f"{self.ready.run}: the scores that its head predicts have no gradient")
                loss = F.cross_entropy(scores, labels, reduction="sum") / images
            found = torch.autograd.grad(loss, parameters, allow_unused=True)
            reached = [(total, part) for total, part in zip(gradient, found, strict=True) if part is not None]
            torch._foreach_add_(*map(list, zip(*reached, strict=True)))
            self.on_images(passes * len(labels))
        drop_cached(self.ready.classifier)
        return gradient

    def _scores(self, pixels: Tensor) -> Tensor:
        return scores_of(self.ready.classifier, pixels, self.ready.precision)


def means(losses: Sequence[Tensor]) -> np.ndarray:
    """Return the mean of the losses N of each position as float64; the only synchronization with the device."""
    return torch.stack(list(losses)).cpu().numpy().mean(axis=1, dtype=np.float64)


def read_images(
    ready: ReadyClassifier, split: Split, on_images: Callable[[int], object]
) -> tuple[list[tuple[Tensor, Tensor]], dict[str, str]]:
    """Read the images of a split once, as batches for `LossSurface`.

    Args:
        ready: the classifier; the images are kept on its device up to `KEPT_BYTES`.
        split: labels index the classifier's classes.
        on_images: called with the number of images of each batch.

    Returns:
        The batches, and why images could not be read, by key.

    Raises:
        FgvcError: no image can be read.
    """
    device, side = ready.classifier.device, ready.classifier.preprocessing.image_size
    place = device if len(split) * 3 * side**2 <= KEPT_BYTES else torch.device("cpu")
    loader, batches = ready.loader(split), []
    for batch in loader:
        batches.append((batch.pixels.to(place), batch.labels.to(device)))
        on_images(len(batch.labels))
    loader.close()  # ends the worker processes
    if not batches:
        raise FgvcError(f"{ready.run}: none of the {len(split)} images ({split.name}) can be read")
    return batches, dict(loader.failures)
