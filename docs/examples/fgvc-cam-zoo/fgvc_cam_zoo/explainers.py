"""The explainers, each a wrapper of a class of the grad-cam package."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
from pytorch_grad_cam import KPCA_CAM, ScoreCAM, score_cam
from pytorch_grad_cam.base_cam import BaseCAM
from torch import Tensor, nn

from fgvc_cam_zoo.options import ScoreCamOptions
from fgvc_cam_zoo.package_cam import PackageCam


class ScoreCam(PackageCam):
    """Score-CAM (Wang et al. 2020, arXiv 1910.01279).

    Each channel, resized to the image and scaled to [0, 1], masks the image; channels are weighted by the softmax of
    the resulting scores. This takes a forward pass per channel.
    """

    name = "scorecam"
    options: ScoreCamOptions

    def make(self, model: nn.Module, layers: list[nn.Module], reshape: Callable[[Tensor], Tensor]) -> BaseCAM:
        """Return the package's Score-CAM."""
        cam = ScoreCAM(model, layers, reshape)
        cam.batch_size = self.options.batch_size
        return cam

    def quiet(self) -> AbstractContextManager[object]:
        """Disable the package's progress bars."""
        return mock.patch.object(score_cam, "tqdm", SimpleNamespace(tqdm=lambda batches: batches))


class KpcaCam(PackageCam):
    """KPCA-CAM (Karmani et al. 2024, arXiv 2410.00267).

    The first kernel principal component of the channels over the points of the map, independent of the class. Its sign,
    which the decomposition leaves open, is chosen so that it correlates positively with the mean activation.
    """

    name = "kpcacam"
    class_specific = False

    def make(self, model: nn.Module, layers: list[nn.Module], reshape: Callable[[Tensor], Tensor]) -> BaseCAM:
        """Return the package's KPCA-CAM with a defined sign."""
        return _DirectedKpcaCam(model, layers, reshape)


class _DirectedKpcaCam(KPCA_CAM):
    def get_cam_image(
        self, input_tensor: Any, target_layer: Any, targets: Any, activations: Any, grads: Any, eigen_smooth: bool
    ) -> Any:
        """Return the projection B,H,W of activations B,C,H,W that correlates positively with their mean."""
        projection = super().get_cam_image(input_tensor, target_layer, targets, activations, grads, eigen_smooth)
        rising = (projection * activations.mean(axis=1)).sum(axis=(1, 2), keepdims=True)
        return np.where(rising < 0, -projection, projection)
