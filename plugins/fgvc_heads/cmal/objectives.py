"""The five objectives of CMAL: which parts of the head each runs, what it returns, and its loss."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fgvc_cli.contracts import Loss


class CmalOutput(NamedTuple):
    """Scores of the classifiers that the part in question has; None stands for what it has not.

    Attributes:
        expert_scores: B,K of each expert, e1 (shallow) to e3 (deep).
        concat_scores: B,K of the experts' concatenation.
        expert_maps: B,D,H,W of each expert, detached: what attention is computed from.
    """

    expert_scores: tuple[Tensor | None, Tensor | None, Tensor | None]
    concat_scores: Tensor | None
    expert_maps: tuple[Tensor, Tensor, Tensor] | None

    def all_scores(self) -> list[Tensor]:
        """Return the scores there are, the concatenation's last."""
        return [scores for scores in (*self.expert_scores, self.concat_scores) if scores is not None]


class Attention(NamedTuple):
    """Where the experts look, all of it in float32 (boxes in int64) and without gradient.

    Boxes are x0, y0, x1, y1 in pixels of the image; x1 and y1 are the first column and row outside.

    Attributes:
        expert_maps: B,3,H,W in [0, 1] at the size of the images, e1 to e3: each expert's attention map.
        expert_boxes: B,3,4, their attention regions.
        overall_map: B,H,W in [0, 1]: the three together.
        overall_box: B,4, the overall attention region.
    """

    expert_maps: Tensor
    expert_boxes: Tensor
    overall_map: Tensor
    overall_box: Tensor


LEVELS = (0, 1, 2)
"""The experts e1, e2 and e3, shallow to deep."""


@dataclass(frozen=True)
class Part:
    """What is run for an objective.

    Attributes:
        experts: those that run; the backbone stops after the deepest map that they read.
        watching: those of them that run without gradient, because only their attention is wanted.
        scored: whether the experts' own classifiers run.
        concat: whether the concatenation's classifier runs.
        attends: whether the experts' maps are kept for attention.
    """

    experts: tuple[int, ...] = LEVELS
    watching: tuple[int, ...] = ()
    scored: bool = True
    concat: bool = False
    attends: bool = False


PARTS: dict[str | None, Part] = {
    None: Part(concat=True, attends=True),
    "e3": Part(watching=(0, 1), attends=True),
    "e2": Part(experts=(1,)),
    "e1": Part(experts=(0,)),
    "overall": Part(concat=True),
    "concat": Part(scored=False, concat=True),
}
"""By the name that an objective gives; None: all that a prediction needs."""


def full_passes() -> dict[str | None, Part]:
    """Return the parts if each runs the whole forward pass, as published: all batch-norm statistics move."""
    return {name: replace(part, experts=LEVELS, watching=(), scored=True, concat=True) for name, part in PARTS.items()}


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
