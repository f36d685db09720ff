"""The explainers, each by the class of the package that does the work."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
from pytorch_grad_cam import EigenCAM, ScoreCAM, score_cam
from pytorch_grad_cam.base_cam import BaseCAM
from torch import Tensor, nn

from fgvc_cam_zoo.options import ScoreCamOptions
from fgvc_cam_zoo.package_cam import PackageCam


class ScoreCam(PackageCam):
    """Score-CAM (Wang et al. 2020, arXiv 1910.01279).

    Each channel, resized to the image and scaled to [0, 1], is laid over the image like a mask; the softmax over
    channels of the target's scores weighs them. It takes a forward pass for each channel.
    """

    name = "scorecam"
    options: ScoreCamOptions

    def make(self, model: nn.Module, layers: list[nn.Module], reshape: Callable[[Tensor], Tensor]) -> BaseCAM:
        """Make the package's Score-CAM."""
        cam = ScoreCAM(model, layers, reshape)
        cam.batch_size = self.options.batch_size
        return cam

    def quiet(self) -> AbstractContextManager[object]:
        """Keep the package from drawing a bar for each image over those of the host."""
        return mock.patch.object(score_cam, "tqdm", SimpleNamespace(tqdm=lambda batches: batches))


class EigenCam(PackageCam):
    """Eigen-CAM (Muhammad, Yeasin 2020, arXiv 2008.00299).

    The first principal component of the channels over the points of the map; the class has no say in it. Which of the
    component's two directions is up, the decomposition leaves open: here it is the one in which activation grows.
    """

    name = "eigencam"

    def make(self, model: nn.Module, layers: list[nn.Module], reshape: Callable[[Tensor], Tensor]) -> BaseCAM:
        """Make the package's Eigen-CAM, the direction settled."""
        return _DirectedEigenCam(model, layers, reshape)


class _DirectedEigenCam(EigenCAM):
    def get_cam_image(
        self, input_tensor: Any, target_layer: Any, targets: Any, activations: Any, grads: Any, eigen_smooth: bool
    ) -> Any:
        """Return the projection B,H,W of activations B,C,H,W, turned so that it rises with their mean."""
        projection = super().get_cam_image(input_tensor, target_layer, targets, activations, grads, eigen_smooth)
        rising = (projection * activations.mean(axis=1)).sum(axis=(1, 2), keepdims=True)
        return np.where(rising < 0, -projection, projection)
