"""LayerCAM."""

from __future__ import annotations

from torch import Tensor

from fgvc_explainers.activation_map import ActivationMap


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
