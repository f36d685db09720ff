"""X"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from fgvc_cli import FgvcError, UsageError
from fgvc_cli.contracts import CamLayer, Classifier, Explainer
from fgvc_explainers.options import ActivationOptions
from fgvc_explainers.recording import record
from fgvc_explainers.scaling import at_image_size, to_unit_range


class ActivationMap(Explainer):
    """Weighs the activations of a layer by the gradient of the score there; a method says how, in `combine`.

    The score is the one that the prediction uses, the layer the one that the backbone declares for it (its class
    token, its layout and its grid included). On images so small that this layer has only a few points, an earlier
    stage is taken: on 64 px the last stage of a CNN is a map of 2x2 points, which tells nothing.

    The map is what is positive of `combine`, resized bilinearly to the image and divided by its largest value; where
    nothing speaks for the class it is all zero.

    Args:
        options: see `ActivationOptions`.
    """

    name: ClassVar[str]

    def __init__(self, options: ActivationOptions) -> None:
        self.options = options

    @abstractmethod
    def combine(self, activations: Tensor, gradients: Tensor) -> Tensor:
        """Return B,N: how much each point speaks for the class, from activations and gradients B,N,C."""

    def explain(self, classifier: Classifier, images: Tensor, targets: Tensor) -> Tensor:
        """Return maps B,S,S in [0, 1] of images B,3,S,S for target classes B.

        Raises:
            UsageError: as `check`.
            FgvcError: no gradient leads from the score to the layer.
        """
        recording = record(classifier, self._layer(classifier), images, targets)
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            points = self.combine(recording.activations, recording.gradients).relu()
            maps = at_image_size(points.unflatten(1, recording.grid), (images.shape[2], images.shape[3]))
            return to_unit_range(maps).float()

    def check(self, classifier: Classifier) -> None:
        """Refuse a map that the backbone has not, or has no module for.

        Raises:
            UsageError: it is so.
        """
        self._layer(classifier)

    def notes(self, classifier: Classifier) -> list[str]:
        """Say so where the activations are not those that the score is read from."""
        index = self._map(classifier)
        if self.options.map is not None or index == classifier.head.cam_map():
            return []
        rows, columns = classifier.backbone.info.maps[index or 0].grid
        return [
            f"{self.name}: where the score is read, the map has less than {self.options.least_side} points a side at "
            f"{classifier.preprocessing.image_size} px; map {index} with {rows}x{columns} is taken "
            "(--set explainer.least_side=1: not so)."
        ]

    def _map(self, classifier: Classifier) -> int | None:
        """Choose the map: an index into the backbone's, or None for what its embedding is made of."""
        if self.options.map is not None:
            return self.options.map
        read, maps = classifier.head.cam_map(), classifier.backbone.info.maps
        deepest = len(maps) - 1 if read is None else read
        fine = [i for i, info in enumerate(maps[: deepest + 1]) if min(info.grid) >= self.options.least_side]
        return read if not fine or fine[-1] == deepest else fine[-1]

    def _layer(self, classifier: Classifier) -> CamLayer:
        """Return the layer whose activations are taken."""
        index, backbone = self._map(classifier), classifier.backbone
        if index is not None and index >= len(backbone.info.maps):
            known = ", ".join(map(str, range(len(backbone.info.maps)))) or "none"
            raise UsageError(f"explainer.map={index}: {backbone.info.name} has the maps {known}.")
        try:
            return backbone.cam_layer(index)
        except (FgvcError, ValueError) as error:
            raise UsageError(
                f"{self.name} takes the activations of a layer. {error} "
                "Use the explainer sliding_window, which needs none."
            ) from error


class GradCam(ActivationMap):
    """Grad-CAM (Selvaraju et al. 2020, IJCV 128(2), arXiv 1610.02391, section 3).

    With A_k the k-th channel of the layer (N points) and y_c the class's score before the softmax:

        alpha_k = 1/N sum_ij d y_c / d A_k,ij        map = ReLU(sum_k alpha_k A_k)
    """

    name = "gradcam"

    def combine(self, activations: Tensor, gradients: Tensor) -> Tensor:
        """Weigh each channel by its mean gradient."""
        weights = gradients.mean(dim=1)  # B,C
        return (activations @ weights.unsqueeze(2)).squeeze(2)


class GradCamPlusPlus(ActivationMap):
    """Grad-CAM++ (Chattopadhay et al. 2018, WACV, arXiv 1710.11063).

    The paper takes Y = exp(y_c), whose n-th derivative is exp(y_c) g^n with g = d y_c / d A_k,ij, the layers after A
    being linear or ReLU. Its weights are then, with S_k = sum_ab A_k,ab,

        a_k,ij = g^2 / (2 g^2 + S_k g^3) = 1 / (2 + S_k g)      (0 where g = 0)
        w_k = sum_ij a_k,ij ReLU(g)        map = ReLU(sum_k w_k A_k)

    where the factor exp(y_c) > 0 of each image is left out of w_k, since its map is scaled anyway. S_k is never
    negative after a ReLU, as in the paper. After other layers (tokens, SiLU) a negative one is taken as 0: the
    denominator could otherwise vanish or turn the sign.
    """

    name = "gradcam++"

    def combine(self, activations: Tensor, gradients: Tensor) -> Tensor:
        """Weigh each channel by its positive gradients, each by its share."""
        sums = activations.sum(dim=1, keepdim=True).clamp_min(0)  # B,1,C
        positive = gradients.relu()
        weights = (positive / (2 + sums * positive)).sum(dim=1)  # B,C
        return (activations @ weights.unsqueeze(2)).squeeze(2)


class LayerCam(ActivationMap):
    """LayerCAM (Jiang et al. 2021, IEEE Transactions on Image Processing 30).

    Every point of every channel has a weight of its own, which is what makes maps of shallow layers (the option `map`)
    worth looking at:

        map_ij = ReLU(sum_k ReLU(d y_c / d A_k,ij) A_k,ij)
    """

    name = "layercam"

    def combine(self, activations: Tensor, gradients: Tensor) -> Tensor:
        """Weigh each activation by its own gradient, where that is positive."""
        return (gradients.relu() * activations).sum(dim=2)
