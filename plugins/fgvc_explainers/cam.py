"""Class activation maps: activations of one layer, weighted by gradients of a class's score, or projected."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from fgvc_cli import FgvcError, UsageError
from fgvc_cli.contracts import Backbone, CamLayer, Classifier, Explainer
from fgvc_explainers.options import ActivationOptions, FinerCamOptions
from fgvc_explainers.recording import activations_of, at_image_size, record, score_of_target, to_unit_range


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
        recording = record(classifier, self._layer(classifier), images, targets, self.score)
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            return maps_of(self.combine(recording.activations, recording.gradients), recording.grid, images)

    def score(self, scores: Tensor, targets: Tensor) -> Tensor:
        """Return the numbers B to differentiate, from scores B,K and targets B: the targets' scores."""
        return score_of_target(scores, targets)

    def check(self, classifier: Classifier) -> None:
        """Look up the layer.

        Raises:
            UsageError: the backbone has no such map, or no module whose output is that map.
        """
        self._layer(classifier)

    def notes(self, classifier: Classifier) -> list[str]:
        """Report an earlier layer than the one the score is computed from."""
        index = self._map(classifier)
        if self.options.layer or self.options.map is not None or index == classifier.head.cam_map():
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
        if self.options.layer:
            try:
                return backbone.named_layer(self.options.layer)
            except FgvcError as error:
                raise UsageError(f"`explainer.layer={self.options.layer}`: {error}") from error
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


def maps_of(points: Tensor, grid: tuple[int, int], images: Tensor) -> Tensor:
    """Return maps B,S,S in [0, 1] of the positive part of values B,N on a grid, at the size of the images."""
    maps = at_image_size(points.relu().unflatten(1, grid), (images.shape[2], images.shape[3]))
    return to_unit_range(maps).float()


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


class FinerCam(GradCam):
    """Finer-CAM (Zhang et al. 2025, CVPR, arXiv 2501.11309): Grad-CAM of what tells a class from its nearest others.

    With y_c the class's logit and d_1 ... d_T the T classes of this image with the logits nearest to it, the map is
    Grad-CAM's of

        y_c - gamma / T sum_t y_dt

    What similar classes share cancels; gamma = 0 is Grad-CAM.

    Args:
        options: see `FinerCamOptions`.
    """

    name = "finer-cam"
    options: FinerCamOptions

    def score(self, scores: Tensor, targets: Tensor) -> Tensor:
        """Return each target's score minus gamma times the mean score of its nearest others: B."""
        own = scores.gather(1, targets.unsqueeze(1))
        with torch.no_grad():
            distances = (scores - own).abs().scatter(1, targets.unsqueeze(1), torch.inf)
            count = min(self.options.references, scores.shape[1] - 1)
            nearest = distances.topk(count, dim=1, largest=False).indices
        return own.squeeze(1) - self.options.gamma * scores.gather(1, nearest).mean(dim=1)

    def check(self, classifier: Classifier) -> None:
        """Look up the layer, and check that there are classes to compare with.

        Raises:
            UsageError: there is no layer, or only one class.
        """
        super().check(classifier)
        if len(classifier.class_names) < 2:
            raise UsageError("finer-cam compares a class with others, and the classifier has only one; use gradcam")


class EigenCam(ActivationMap):
    """Eigen-CAM (Muhammad, Yeasin 2020, IJCNN, arXiv 2008.00299), independent of the class and of the head.

    With A the activations of the layer (N points by C channels) and A = U S V^T, the map is the projection A v_1 on the
    first right singular vector. Its sign, which the decomposition leaves open, is that of its sum: after a ReLU no
    value is then negative. Other values below 0 become 0.
    """

    name = "eigencam"
    class_specific = False

    def explain(self, classifier: Classifier, images: Tensor, targets: Tensor) -> Tensor:  # noqa: ARG002
        """Return maps B,S,S in [0, 1] of images B,3,S,S, without gradients."""
        activations, grid = activations_of(classifier, self._layer(classifier), images)
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            return maps_of(self.combine(activations, activations), grid, images)

    def combine(self, activations: Tensor, gradients: Tensor) -> Tensor:  # noqa: ARG002
        """Project the activations on their first right singular vector."""
        left, values, _ = torch.linalg.svd(torch.nan_to_num(activations), full_matrices=False)
        projection = left[:, :, 0] * values[:, :1]
        return torch.where(projection.sum(dim=1, keepdim=True) < 0, -projection, projection)
