"""Muon: momentum, orthogonalized, for the matrices inside the backbone; AdamW for everything else."""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature
from typing import Any

import timm
import timm.optim
import torch
from torch import nn

from fgvc_cli import FgvcError
from fgvc_cli.contracts import ParameterGroup, TorchOptimizer
from fgvc_optimizers.options import MuonOptions

COLORS = 3
"""Input channels of the layer that reads images."""


class Muon(TorchOptimizer):
    """Momentum orthogonalized by Newton-Schulz iterations, as timm's `Muon` computes it (a convolution as a matrix).

    v <- momentum * v + (1 - momentum) * g;  O ~ U V^T of the (Nesterov) momentum U S V^T;
    w <- w - lr * (weight_decay * w + 0.2 * sqrt(max(rows, columns)) * O)

    The factor gives an update the size that AdamW's has, so that both can share a learning rate (Liu et al. 2025,
    Muon is Scalable for LLM Training, arXiv 2502.16982). AdamW updates what is no hidden matrix: norms, biases, tokens
    and tables of positions, depthwise convolutions, the layer that reads the image, and the whole head, as Jordan
    recommends for input and output layers. Parameters without a gradient are skipped.

    Reference: Jordan et al. 2024, Muon: An optimizer for hidden layers in neural networks,
    https://kellerjordan.github.io/posts/muon/.

    Raises:
        FgvcError: the installed version of timm has no Muon, or one that ignores learning rates.
    """

    moves_without_grad = False

    def __init__(self, groups: Sequence[ParameterGroup], options: MuonOptions) -> None:
        named = ((name, p) for group in groups if group.part == "backbone" for name, p in group.parameters.items())
        self._hidden = {parameter for name, parameter in named if is_hidden_matrix(name, parameter)}
        super().__init__(groups, options)

    def make(self, groups: list[dict[str, Any]], options: MuonOptions) -> torch.optim.Optimizer:
        """Make timm's Muon, with each group split into hidden matrices and the rest."""
        known = getattr(timm.optim, "Muon", None)
        if known is None or "fallback_lr_scale" not in signature(known).parameters:
            # Before, what AdamW updates kept the initial learning rate, whatever rate was set.
            raise FgvcError(
                f"the optimizer muon needs timm 1.0.27 or later, not {timm.__version__}: pip install -U timm"
            )
        split = []
        for group in groups:
            hidden = [p for p in group["params"] if p in self._hidden]
            others = [p for p in group["params"] if p not in self._hidden]
            split.append({**group, "params": hidden, "use_muon": True, "nesterov": options.nesterov})
            split.append({**group, "params": others, "use_muon": False, "nesterov": False, "eps": options.eps})
        return known(
            [group for group in split if group["params"]],
            lr=options.lr,
            weight_decay=options.weight_decay,
            momentum=options.momentum,
            ns_steps=options.ns_steps,
            ns_coefficients="original",
            adjust_lr_fn="match_rms_adamw",
            betas=options.betas,
        )


def is_hidden_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Return whether a parameter of the backbone maps several features to several, and does not read the image."""
    if not name.endswith("weight") or parameter.ndim < 2:
        return False
    outputs, inputs = parameter.shape[:2]
    return min(outputs, inputs) > 1 and not (parameter.ndim > 2 and inputs == COLORS)
