"""Stochastic gradient descent with momentum."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fgvc_cli.contracts import TorchOptimizer
from fgvc_optimizers.options import SgdOptions


class Sgd(TorchOptimizer):
    """SGD with (Nesterov) momentum and L2 weight decay, as `torch.optim.SGD` defines them.

    v <- momentum * v + g + weight_decay * w;  w <- w - lr * v, or for Nesterov w - lr * (g' + momentum * v) with g'
    the decayed gradient. Sutskever et al. 2013, On the importance of initialization and momentum in deep learning.
    """

    linear_scaling = True

    def make(self, groups: list[dict[str, Any]], options: SgdOptions) -> torch.optim.Optimizer:
        """Make torch's fused SGD."""
        return torch.optim.SGD(
            groups,
            lr=options.lr,
            momentum=options.momentum,
            nesterov=options.nesterov and options.momentum > 0,  # the same without momentum
            weight_decay=options.weight_decay,
            fused=True,
        )

    def update(self, found_inf: Tensor) -> None:
        """Apply the gradients, unless `found_inf` is 1.0.

        Momentum buffers start at 0, which is equivalent: torch would allocate them uninitialized and fill them in the
        first update, which leaves garbage if that update is skipped.
        """
        state = self.optimizer.state
        for group in self.optimizer.param_groups:
            for parameter in group["params"] if group["momentum"] else ():
                if parameter.grad is not None and "momentum_buffer" not in state[parameter]:
                    state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        super().update(found_inf)
