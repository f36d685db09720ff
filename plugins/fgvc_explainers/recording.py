"""Record the activations of one layer and the gradient of a score there; scale maps to the image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fgvc_cli import FgvcError
from fgvc_cli.contracts import CamLayer, Classifier

Score = Callable[[Tensor, Tensor], Tensor]
"""From scores B,K and targets B to the numbers B to differentiate."""


def at_image_size(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize maps B,h,w bilinearly to H,W (pixel centers as in image resizing: corners not aligned)."""
    return F.interpolate(maps.unsqueeze(1), size, mode="bilinear", align_corners=False).squeeze(1)


def to_unit_range(maps: Tensor) -> Tensor:
    """Divide non-negative maps B,H,W by their maximum per image; an all-zero map stays zero.

    Nothing is subtracted: 0 keeps its meaning of "no evidence for the class", and proportions are preserved.
    """
    largest = maps.amax(dim=(1, 2), keepdim=True)
    return maps / torch.where(largest > 0, largest, 1)


def stretched(maps: Tensor) -> Tensor:
    """Scale maps B,H,W from their minimum to their maximum, per image to [0, 1]; a flat map becomes 0."""
    lowest, highest = maps.amin(dim=(1, 2), keepdim=True), maps.amax(dim=(1, 2), keepdim=True)
    size = highest - lowest
    return torch.where(size > FLAT * highest.abs(), (maps - lowest) / size, 0)


FLAT = 1e-5
"""Differences within a flat map, as a fraction of its maximum: sums round."""

DOES_NOT_RUN = "the backbone's layer for activation maps does not run in a prediction"


class Recording(NamedTuple):
    """Activations and gradients at a layer, in float32 at least.

    Attributes:
        activations: B,N,C, the N points of the grid row by row.
        gradients: B,N,C, of each image's own score.
        grid: (rows, columns), whose product is N.
    """

    activations: Tensor
    gradients: Tensor
    grid: tuple[int, int]


def score_of_target(scores: Tensor, targets: Tensor) -> Tensor:
    """Return each image's score of its target: B, from scores B,K and targets B."""
    return scores.gather(1, targets.unsqueeze(1)).squeeze(1)


def record(
    classifier: Classifier, layer: CamLayer, images: Tensor, targets: Tensor, score: Score = score_of_target
) -> Recording:
    """Predict, then backpropagate from the targets' scores to a layer.

    If a prediction takes several passes, the first is recorded, the one over the images as they are. Nothing here
    synchronizes with the device or loops over the images.

    Args:
        classifier: in evaluation mode.
        layer: where to record.
        images: B,3,S,S, normalized.
        targets: class indices B.
        score: what to differentiate.

    Raises:
        FgvcError: the layer does not run, its output is not a tensor, or the score does not depend on it.
    """
    images = images.detach()
    leaf = _Leaf()
    with frozen(classifier), torch.compiler.set_stance("force_eager"), torch.no_grad():  # compiled code skips hooks
        handle = layer.module.register_forward_hook(leaf)
        try:
            scores = classifier.scores(images)  # with gradients from the layer on
        finally:
            handle.remove()
        activations, gradients = _backward(scores, leaf.activations, targets.to(images.device), score)
    points, grid = _as_points(activations, layer)
    return Recording(points, _as_points(gradients, layer)[0], grid)


class _Leaf:
    """Forward hook that copies a module's first output and, with gradients, starts the graph there."""

    def __init__(self, gradients: bool = True) -> None:
        self.gradients = gradients
        self.activations: Tensor | None = None

    def __call__(self, module: nn.Module, inputs: object, output: object) -> Tensor | None:  # noqa: ARG002
        if self.activations is not None:
            return None
        if not isinstance(output, Tensor):
            raise FgvcError(f"the backbone's layer for activation maps, a {type(module).__name__}, returns no tensor")
        if not self.gradients:
            self.activations = output.clone()
            return None
        self.activations = output.detach().requires_grad_()
        torch.set_grad_enabled(True)  # until the end of the `no_grad` around the whole pass
        return self.activations.clone()  # the next module may modify its input in place


def _backward(scores: Tensor, activations: Tensor | None, targets: Tensor, score: Score) -> tuple[Tensor, Tensor]:
    """Return the activations, and the gradient there of the sum of the images' scores."""
    if activations is None:
        raise FgvcError(DOES_NOT_RUN)
    with torch.enable_grad(), torch.autocast(scores.device.type, enabled=False):
        chosen = score(scores, targets).sum()  # a score depends on its own image only
    if not chosen.requires_grad:
        raise FgvcError("the scores have no gradient with respect to the backbone: the head computes without gradients")
    with torch.autocast(scores.device.type, enabled=False):
        (gradients,) = torch.autograd.grad(chosen, activations, allow_unused=True)
    if gradients is None:
        raise FgvcError("the scores do not depend on the backbone's layer for activation maps")
    return activations.detach(), gradients


def activations_of(classifier: Classifier, layer: CamLayer, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """Return the activations B,N,C at a layer, in float32 at least, and the grid of the N points; without gradients.

    Raises:
        FgvcError: the layer does not run, or its output is not a tensor.
    """
    leaf = _Leaf(gradients=False)
    with torch.compiler.set_stance("force_eager"), torch.no_grad():
        handle = layer.module.register_forward_hook(leaf)
        try:
            classifier.scores(images)
        finally:
            handle.remove()
    if leaf.activations is None:
        raise FgvcError(DOES_NOT_RUN)
    return _as_points(leaf.activations, layer)


def _as_points(tensor: Tensor, layer: CamLayer) -> tuple[Tensor, tuple[int, int]]:
    """Return a layer's output or gradient as B,N,C without prefix tokens, and its grid."""
    tensor = tensor.to(torch.promote_types(tensor.dtype, torch.float32))
    if layer.layout == "BCHW":
        return tensor.flatten(2).transpose(1, 2), (tensor.shape[2], tensor.shape[3])
    if layer.layout == "BHWC":
        return tensor.flatten(1, 2), (tensor.shape[1], tensor.shape[2])
    tokens = tensor[:, layer.prefix :]
    if layer.grid is None or tokens.shape[1] != layer.grid[0] * layer.grid[1]:
        raise FgvcError(
            f"the backbone's layer for activation maps has {tokens.shape[1]} tokens after {layer.prefix} prefix "
            f"tokens, which do not fit its grid {layer.grid}"
        )
    return tokens, layer.grid


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Disable gradients of all parameters, and enable them again for those that had one."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        for parameter in parameters:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
