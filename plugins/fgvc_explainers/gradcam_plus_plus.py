"""Grad-CAM++."""

from __future__ import annotations

from torch import Tensor

from fgvc_explainers.activation_map import ActivationMap


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
