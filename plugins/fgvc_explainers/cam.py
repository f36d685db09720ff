"""Grad-CAM, Grad-CAM++ and LayerCAM: activations of one layer, weighted by gradients of a class's score."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fgvc_cli import FgvcError, UsageError
from fgvc_cli.contracts import Backbone, CamLayer, Classifier, Explainer
from fgvc_explainers.options import ActivationOptions


def at_image_size(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize maps B,h,w bilinearly to H,W (pixel centers as in image resizing: corners not aligned)."""
    return F.interpolate(maps.unsqueeze(1), size, mode="bilinear", align_corners=False).squeeze(1)


def to_unit_range(maps: Tensor) -> Tensor:
    """Divide non-negative maps B,H,W by their maximum per image; an all-zero map stays zero.

    Nothing is subtracted: 0 keeps its meaning of "no evidence for the class", and proportions are preserved.
    """
    largest = maps.amax(dim=(1, 2), keepdim=True)
    return maps / torch.where(largest > 0, largest, 1)


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


class ActivationMap(Explainer):
    """Combine the activations of a layer with the gradients of the score there; subclasses override `combine`.

    The score is the one that the prediction uses, the layer the one that the backbone declares for it (with its class
    token, layout and grid). On small images, where that layer has only a few points, an earlier stage is used: at 64 px
    the last stage of a CNN is a map of 2x2 points, which localizes nothing.

    The map is the positive part of `combine`, resized bilinearly to the image and divided by its maximum; it is all
    zero where there is no evidence for the class.

    Args:
        options: see `ActivationOptions`.
    """

    name: ClassVar[str]

    def __init__(self, options: ActivationOptions) -> None:
        self.options = options

    @abstractmethod
    def combine(self, activations: Tensor, gradients: Tensor) -> Tensor:
        """Return B,N: the evidence for the class at each point, from activations and gradients B,N,C."""

    def explain(self, classifier: Classifier, images: Tensor, targets: Tensor) -> Tensor:
        """Return maps B,S,S in [0, 1] of images B,3,S,S for target classes B.

        Raises:
            UsageError: see `check`.
            FgvcError: the score does not depend on the layer by a gradient.
        """
        recording = record(classifier, self._layer(classifier), images, targets)
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            points = self.combine(recording.activations, recording.gradients).relu()
            maps = at_image_size(points.unflatten(1, recording.grid), (images.shape[2], images.shape[3]))
            return to_unit_range(maps).float()

    def check(self, classifier: Classifier) -> None:
        """Look up the layer.

        Raises:
            UsageError: the backbone has no such map, or no module whose output is that map.
        """
        self._layer(classifier)

    def notes(self, classifier: Classifier) -> list[str]:
        """Report an earlier layer than the one the score is computed from."""
        index = self._map(classifier)
        if self.options.map is not None or index == classifier.head.cam_map():
            return []
        rows, columns = classifier.backbone.info.maps[index or 0].grid
        return [
            f"{self.name}: the last layer has fewer than {self.options.least_side} points per side at "
            f"{classifier.preprocessing.image_size} px; using map {index} ({rows}x{columns}). Disable with "
            "`explainer.least_side=1`"
        ]

    def _map(self, classifier: Classifier) -> int | None:
        """Choose the map: an index into the backbone's maps, or None for the layer of its embedding."""
        if self.options.map is not None:
            return self.options.map
        read, maps = classifier.head.cam_map(), classifier.backbone.info.maps
        deepest = len(maps) - 1 if read is None else read
        sides = [min(info.grid) for info in maps[: deepest + 1]]
        least = min(self.options.least_side, max(sides, default=0))  # no map may have enough: then the finest
        fine = [i for i, side in enumerate(sides) if side >= least]
        if not fine or fine[-1] == deepest:
            return read
        return next((i for i in reversed(fine) if _has_layer(classifier.backbone, i)), read)

    def _layer(self, classifier: Classifier) -> CamLayer:
        index, backbone = self._map(classifier), classifier.backbone
        if index is not None and index >= len(backbone.info.maps):
            known = ", ".join(map(str, range(len(backbone.info.maps)))) or "none"
            raise UsageError(f"`explainer.map={index}`: maps of {backbone.info.name}: {known}")
        try:
            return backbone.cam_layer(index)
        except (FgvcError, ValueError) as error:
            raise UsageError(
                f"{self.name} needs the activations of a layer: {error}; use the explainer sliding_window, which needs "
                "none"
            ) from error


def _has_layer(backbone: Backbone, index: int) -> bool:
    try:
        backbone.cam_layer(index)
    except (FgvcError, ValueError):
        return False
    return True


class GradCam(ActivationMap):
    """Grad-CAM (Selvaraju et al. 2020, IJCV 128(2), arXiv 1610.02391, section 3).

    With A_k the k-th channel of the layer (N points) and y_c the class's logit:

        alpha_k = 1/N sum_ij d y_c / d A_k,ij        map = ReLU(sum_k alpha_k A_k)
    """

    name = "gradcam"

    def combine(self, activations: Tensor, gradients: Tensor) -> Tensor:
        """Weight each channel by its mean gradient."""
        weights = gradients.mean(dim=1)  # (B, C)
        return (activations @ weights.unsqueeze(2)).squeeze(2)


class GradCamPlusPlus(ActivationMap):
    """Grad-CAM++ (Chattopadhay et al. 2018, WACV, arXiv 1710.11063).

    The paper takes Y = exp(y_c), whose n-th derivative is exp(y_c) g^n with g = d y_c / d A_k,ij if the layers after A
    are linear or ReLU. With S_k = sum_ab A_k,ab the weights are

        a_k,ij = g^2 / (2 g^2 + S_k g^3) = 1 / (2 + S_k g)      (0 where g = 0)
        w_k = sum_ij a_k,ij ReLU(g)        map = ReLU(sum_k w_k A_k)

    The factor exp(y_c) > 0 of each image is left out of w_k, because maps are rescaled anyway. After a ReLU S_k is
    never negative, as in the paper. After other layers (tokens, SiLU) a negative one is set to 0: the denominator could
    otherwise vanish or change sign.
    """

    name = "gradcam++"

    def combine(self, activations: Tensor, gradients: Tensor) -> Tensor:
        """Weight each channel by its positive gradients."""
        sums = activations.sum(dim=1, keepdim=True).clamp_min(0)  # (B, 1, C)
        positive = gradients.relu()
        weights = (positive / (2 + sums * positive)).sum(dim=1)  # (B, C)
        return (activations @ weights.unsqueeze(2)).squeeze(2)


class LayerCam(ActivationMap):
    """LayerCAM (Jiang et al. 2021, IEEE Transactions on Image Processing 30).

    Every point of every channel has its own weight, which makes maps of shallow layers (option `map`) useful:

        map_ij = ReLU(sum_k ReLU(d y_c / d A_k,ij) A_k,ij)
    """

    name = "layercam"

    def combine(self, activations: Tensor, gradients: Tensor) -> Tensor:
        """Weight each activation by its own gradient if that is positive."""
        return (gradients.relu() * activations).sum(dim=2)
