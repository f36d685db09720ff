"""Grad-CAM."""

from __future__ import annotations

from torch import Tensor

from fgvc_explainers.activation_map import ActivationMap


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
