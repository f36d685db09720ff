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

    def make(self, groups: list[dict[str, Any]], options: SgdOptions) -> torch.optim.Optimizer:
        """Make torch's fused SGD."""
        return torch.optim.SGD(
            groups,
            lr=options.lr,
            momentum=options.momentum,
            nesterov=options.nesterov and options.momentum > 0,  # without momentum the two are one
            weight_decay=options.weight_decay,
            fused=True,
        )

    def update(self, found_inf: Tensor) -> None:
        """Apply the gradients, unless `bad` is 1.0."""
        self._start_from_rest()
        super().update(found_inf)

    def _start_from_rest(self) -> None:
        """Give every parameter a momentum of 0 before its first update, which comes to the same.

        Torch would set it aside unfilled and write it in that update: called off, it would leave noise there.
        """
        state = self.optimizer.state
        for group in self.optimizer.param_groups:
            for parameter in group["params"] if group["momentum"] else ():
                if parameter.grad is not None and "momentum_buffer" not in state[parameter]:
                    state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
