"""Adam with decoupled weight decay."""

from __future__ import annotations

from typing import Any

import torch

from fgvc_cli.contracts import TorchOptimizer
from fgvc_optimizers.options import AdamWOptions


class AdamW(TorchOptimizer):
    """AdamW as `torch.optim.AdamW` defines it. Loshchilov, Hutter 2019, arXiv 1711.05101.

    Parameters without a gradient are skipped; the published trainings that move them all use SGD.
    """

    moves_without_grad = False

    def make(self, groups: list[dict[str, Any]], options: AdamWOptions) -> torch.optim.Optimizer:
        """Make torch's fused AdamW."""
        return torch.optim.AdamW(
            groups,
            lr=options.lr,
            betas=options.betas,
            eps=options.eps,
            weight_decay=options.weight_decay,
            fused=True,
        )
