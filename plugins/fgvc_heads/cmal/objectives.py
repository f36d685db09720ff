"""The five objectives of CMAL: the parts of the head that each runs, the output, and the losses.

Losses are cross entropies, computed in float32 at least, and in float64 for logits in float64. Targets are those of
`fgvc_cli.contracts.cross_entropy`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from fgvc_cli.contracts import Loss, cross_entropy

LEVELS = (0, 1, 2)
"""The experts e1, e2 and e3, shallow to deep."""


@dataclass(frozen=True)
class Part:
    """What an objective runs.

    Attributes:
        experts: experts to run; the backbone stops after the deepest map that they read.
        no_grad: those of them that run without gradient, because only their attention is needed.
        scored: whether the experts' own classifiers run.
        concat: whether the classifier of the concatenation runs.
        attends: whether to keep the experts' maps for attention.
    """

    experts: tuple[int, ...] = LEVELS
    no_grad: tuple[int, ...] = ()
    scored: bool = True
    concat: bool = False
    attends: bool = False


PARTS: dict[str | None, Part] = {
    None: Part(concat=True, attends=True),
    "e3": Part(no_grad=(0, 1), attends=True),
    "e2": Part(experts=(1,)),
    "e1": Part(experts=(0,)),
    "overall": Part(concat=True),
    "concat": Part(scored=False, concat=True),
}
"""The parts by the name of the objective; None is the whole head, as prediction needs it."""

FULL_PARTS = {name: replace(part, experts=LEVELS, no_grad=(), scored=True, concat=True) for name, part in PARTS.items()}
"""The same with the whole forward pass in each, as published: all batch-norm statistics are updated."""


class CmalOutput(NamedTuple):
    """Output of a part of the head; None for what the part does not compute.

    Attributes:
        expert_scores: logits B,K of each expert, e1 (shallow) to e3 (deep).
        concat_scores: logits B,K of the experts' concatenation.
        expert_maps: B,D,H,W of each expert, detached; attention is computed from them.
    """

    expert_scores: tuple[Tensor | None, Tensor | None, Tensor | None]
    concat_scores: Tensor | None
    expert_maps: tuple[Tensor, Tensor, Tensor] | None

    def all_scores(self) -> list[Tensor]:
        """Return all logits that were computed, the concatenation's last."""
        return [scores for scores in (*self.expert_scores, self.concat_scores) if scores is not None]


def expert_loss(output: CmalOutput, targets: Tensor, level: int) -> Loss:
    """Return the cross entropy of the expert at `level`."""
    return Loss(_cross_entropy(output.expert_scores[level], targets))


def overall_loss(output: CmalOutput, targets: Tensor, concat_weight: float) -> Loss:
    """Return CE(e1) + CE(e2) + CE(e3) + concat_weight * CE(concat), with the four cross entropies as parts."""
    parts = {f"e{level + 1}": _cross_entropy(output.expert_scores[level], targets) for level in LEVELS}
    concat = _cross_entropy(output.concat_scores, targets)
    value = torch.stack([*parts.values(), concat_weight * concat]).sum()
    return Loss(value, parts={name: part.detach() for name, part in {**parts, "concat": concat}.items()})


def concat_loss(output: CmalOutput, targets: Tensor, concat_weight: float) -> Loss:
    """Return concat_weight * CE(concat), with the logits for the training metrics."""
    return Loss(concat_weight * _cross_entropy(output.concat_scores, targets), output.concat_scores)


def _cross_entropy(scores: Tensor | None, targets: Tensor) -> Tensor:
    assert scores is not None, "this part does not compute these logits"
    return cross_entropy(scores, targets)
