"""What Grad-CAM and its kin share: a layer's activations and gradients in, a map at the image's size out."""

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
    token, its layout and its grid included). The map is what is positive of `combine`, resized bilinearly to the image
    and divided by its largest value; where nothing speaks for the class it is all zero.

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
        """Refuse a map that the head does not read, and a backbone that has no module for it.

        Raises:
            UsageError: it is so.
        """
        self._layer(classifier)

    def _layer(self, classifier: Classifier) -> CamLayer:
        """Return the layer whose activations are taken."""
        index = self.options.map
        if index is None:
            index = classifier.head.cam_map()
        else:
            self._check_read(index, classifier)
        try:
            return classifier.backbone.cam_layer(index)
        except (FgvcError, ValueError) as error:
            raise UsageError(
                f"{self.name} takes the activations of a layer. {error} Use --explainer occlusion, which needs none."
            ) from error

    def _check_read(self, index: int, classifier: Classifier) -> None:
        read = classifier.head.reads().maps
        if not read:
            raise UsageError(
                f"explainer.map={index}: this head reads no feature map, but the embedding of "
                f"{classifier.backbone.info.name}: leave explainer.map out."
            )
        if index not in read:
            raise UsageError(
                f"explainer.map={index}: this head reads the maps {', '.join(map(str, read))} of "
                f"{classifier.backbone.info.name}: choose one of them, or leave explainer.map out."
            )
