"""Activations of one module, and the gradient of a class's score there, for a batch in one pass.

What comes before the module runs without gradients. From there on a graph is recorded that leads to the module's
output alone: parameters are frozen meanwhile, so that none of their gradients is computed or prepared for, and a
second pass through the model (over a crop, say) records nothing.
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
    """What was recorded at a layer, in float32 at least.

    Attributes:
        activations: B,N,C, the N points of the grid row by row.
        gradients: B,N,C, of each image's own score.
        grid: (rows, columns), whose product is N.
    """

    activations: Tensor
    gradients: Tensor
    grid: tuple[int, int]


def record(classifier: Classifier, layer: CamLayer, images: Tensor, targets: Tensor) -> Recording:
    """Run the classifier as for a prediction, and back from the targets' scores to that layer.

    Where a prediction takes several passes, the recording is of the first, over the images as they are. Nothing here
    waits for the device, and no operation is issued for each image.

    Args:
        classifier: in evaluation mode.
        layer: where.
        images: B,3,S,S, normalized.
        targets: B class indices.

    Raises:
        FgvcError: the layer is not run, its output is no tensor, or the score does not depend on it.
    """
    images = images.detach()
    leaf = _Leaf()
    with _frozen(classifier), torch.compiler.set_stance("force_eager"), torch.no_grad():  # compiled code skips hooks
        handle = layer.module.register_forward_hook(leaf)
        try:
            scores = classifier.scores(images)  # from the layer on with gradients
        finally:
            handle.remove()
        activations, gradients = _back(scores, leaf, targets.to(images.device))
    points, grid = _as_points(activations, layer)
    return Recording(points, _as_points(gradients, layer)[0], grid)


class _Leaf:
    """A forward hook that cuts the graph at a module's first output, and starts it anew from there."""

    def __init__(self) -> None:
        self.activations: Tensor | None = None

    def __call__(self, module: nn.Module, inputs: object, output: object) -> Tensor | None:  # noqa: ARG002
        if self.activations is not None:
            return None
        if not isinstance(output, Tensor):
            raise FgvcError(
                f"The backbone names a {type(module).__name__} for activation maps, which gives out no tensor."
            )
        self.activations = output.detach().requires_grad_()
        torch.set_grad_enabled(True)  # until the end of the `no_grad` around the whole pass
        return self.activations.clone()  # the next module may write into what it gets


def _back(scores: Tensor, leaf: _Leaf, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return the activations, and the gradient there of the sum of each image's score for its target."""
    if leaf.activations is None:
        raise FgvcError("The module that the backbone names for activation maps is not run in a prediction.")
    with torch.enable_grad(), torch.autocast(scores.device.type, enabled=False):
        chosen = scores.gather(1, targets.unsqueeze(1)).sum()  # of each image alone: others have no say in it
    if not chosen.requires_grad:
        raise FgvcError("No gradient leads from the prediction's scores to the backbone: the head computes without.")
    with torch.autocast(scores.device.type, enabled=False):
        (gradients,) = torch.autograd.grad(chosen, leaf.activations, allow_unused=True)
    if gradients is None:
        raise FgvcError("The prediction's scores do not depend on the module that the backbone names.")
    return leaf.activations.detach(), gradients


def _as_points(tensor: Tensor, layer: CamLayer) -> tuple[Tensor, tuple[int, int]]:
    """Bring a layer's output, or its gradient, to B,N,C without prefix tokens; return it with its grid."""
    tensor = tensor.to(torch.promote_types(tensor.dtype, torch.float32))
    if layer.layout == "BCHW":
        return tensor.flatten(2).transpose(1, 2), (tensor.shape[2], tensor.shape[3])
    if layer.layout == "BHWC":
        return tensor.flatten(1, 2), (tensor.shape[1], tensor.shape[2])
    tokens = tensor[:, layer.prefix :]
    if layer.grid is None or tokens.shape[1] != layer.grid[0] * layer.grid[1]:
        raise FgvcError(
            f"The backbone names a module of {tokens.shape[1]} tokens (without {layer.prefix} leading ones) on a grid "
            f"of {layer.grid}: they do not fit together."
        )
    return tokens, layer.grid


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """Let no parameter require a gradient meanwhile."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        for parameter in parameters:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
