"""CMAL's losses: cross entropies, in float32 whatever the scores' precision.

Targets are class indices B or probabilities B,K.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fgvc_cli.contracts import Loss
from fgvc_heads.cmal.output import CmalOutput
from fgvc_heads.cmal.parts import LEVELS


def expert_loss(output: CmalOutput, targets: Tensor, level: int) -> Loss:
    """Return the cross entropy of one expert, by its level."""
    return Loss(_cross_entropy(output.expert_scores[level], targets))


def overall_loss(output: CmalOutput, targets: Tensor, concat_weight: float) -> Loss:
    """Return CE(e1) + CE(e2) + CE(e3) + concat_weight * CE(concat), with the four cross entropies as parts."""
    parts = {f"e{level + 1}": _cross_entropy(output.expert_scores[level], targets) for level in LEVELS}
    concat = _cross_entropy(output.concat_scores, targets)
    value = torch.stack([*parts.values(), concat_weight * concat]).sum()
    return Loss(value, parts={name: part.detach() for name, part in {**parts, "concat": concat}.items()})


def concat_loss(output: CmalOutput, targets: Tensor, concat_weight: float) -> Loss:
    """Return concat_weight * CE(concat); its scores are those that the training metrics show."""
    return Loss(concat_weight * _cross_entropy(output.concat_scores, targets), output.concat_scores)


def _cross_entropy(scores: Tensor | None, targets: Tensor) -> Tensor:
    assert scores is not None, "the part that was run has no such scores"
    return F.cross_entropy(scores.float(), targets)
