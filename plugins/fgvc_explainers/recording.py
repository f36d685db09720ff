"""Record a module's activations and the gradient of a class's score there, for a batch in one pass.

Everything before the module runs without gradients. From there on, the graph leads to the module's output only:
parameters are frozen meanwhile, so none of their gradients is computed, and a second pass through the model (over a
crop, for instance) records nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fgvc_cli import FgvcError
from fgvc_cli.contracts import CamLayer, Classifier


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


def record(classifier: Classifier, layer: CamLayer, images: Tensor, targets: Tensor) -> Recording:
    """Predict, then backpropagate from the targets' scores to a layer.

    If a prediction takes several passes, the first is recorded, the one over the images as they are. Nothing here
    synchronizes with the device or loops over the images.

    Args:
        classifier: in evaluation mode.
        layer: where to record.
        images: B,3,S,S, normalized.
        targets: class indices B.

    Raises:
        FgvcError: the layer does not run, its output is not a tensor, or the score does not depend on it.
    """
    images = images.detach()
    leaf = _Leaf()
    with _frozen(classifier), torch.compiler.set_stance("force_eager"), torch.no_grad():  # compiled code skips hooks
        handle = layer.module.register_forward_hook(leaf)
        try:
            scores = classifier.scores(images)  # with gradients from the layer on
        finally:
            handle.remove()
        activations, gradients = _backward(scores, leaf.activations, targets.to(images.device))
    points, grid = _as_points(activations, layer)
    return Recording(points, _as_points(gradients, layer)[0], grid)


class _Leaf:
    """Forward hook that detaches a module's first output and starts the graph there."""

    def __init__(self) -> None:
        self.activations: Tensor | None = None

    def __call__(self, module: nn.Module, inputs: object, output: object) -> Tensor | None:  # noqa: ARG002
        if self.activations is not None:
            return None
        if not isinstance(output, Tensor):
            raise FgvcError(f"the backbone's layer for activation maps, a {type(module).__name__}, returns no tensor")
        self.activations = output.detach().requires_grad_()
        torch.set_grad_enabled(True)  # until the end of the `no_grad` around the whole pass
        return self.activations.clone()  # the next module may modify its input in place


def _backward(scores: Tensor, activations: Tensor | None, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return the activations, and the gradient there of the sum of each image's score for its target."""
    if activations is None:
        raise FgvcError("the backbone's layer for activation maps does not run in a prediction")
    with torch.enable_grad(), torch.autocast(scores.device.type, enabled=False):
        chosen = scores.gather(1, targets.unsqueeze(1)).sum()  # a score depends on its own image only
    if not chosen.requires_grad:
        raise FgvcError("the scores have no gradient with respect to the backbone: the head computes without gradients")
    with torch.autocast(scores.device.type, enabled=False):
        (gradients,) = torch.autograd.grad(chosen, activations, allow_unused=True)
    if gradients is None:
        raise FgvcError("the scores do not depend on the backbone's layer for activation maps")
    return activations.detach(), gradients


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
def _frozen(model: nn.Module) -> Iterator[None]:
    """Disable gradients of all parameters, and enable them again for those that had one."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        for parameter in parameters:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
