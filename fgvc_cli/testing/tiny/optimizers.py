"""Small optimizers: one evaluation a step, and two at the same weights."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from fgvc_cli.contracts import (
    Closure,
    ComposedOptimizer,
    Evaluation,
    Optimizer,
    ParameterGroup,
    SingleEvaluation,
    TorchOptimizer,
)


@dataclass(frozen=True)
class TinyOptions:
    """Options of the kit's optimizers."""

    lr: float = 0.02
    head_lr: float | None = None


class TinySgd(TorchOptimizer):
    """Gradient descent with momentum."""

    def make(self, groups: list[dict[str, Any]], options: Any) -> torch.optim.Optimizer:
        """Make torch's own."""
        return torch.optim.SGD(groups, lr=options.lr, momentum=0.9)


class Twice(ComposedOptimizer):
    """Evaluates twice at the same weights, as SAM does at two points; remembers both evaluations of each step."""

    def __init__(self, groups: Sequence[ParameterGroup], options: Any, base: Optimizer) -> None:
        super().__init__(groups, options, base)
        self.pairs: list[tuple[Evaluation, Evaluation]] = []

    def step(self, closure: Closure) -> Evaluation:
        """Look around without moving, then let the base step."""
        first = closure.ascent()
        second = self.base.step(SingleEvaluation(closure, self.base))
        self.pairs.append((first, second))
        return first


def groups_of(backbone: nn.Module, head: nn.Module) -> list[ParameterGroup]:
    """Return the parameters of both, as the host hands them to an optimizer."""
    return [
        ParameterGroup("backbone", dict(backbone.named_parameters())),
        ParameterGroup("head", dict(head.named_parameters())),
    ]


def tiny_sgd(groups: Iterable[ParameterGroup], lr: float = 0.02) -> TinySgd:
    """Make `TinySgd`."""
    return TinySgd(list(groups), TinyOptions(lr))
