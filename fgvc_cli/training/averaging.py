"""Averages of the weights over the updates of a training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


class WeightAverage:
    """A running average of a model's weights and of its floating-point buffers (batch-norm statistics).

    Buffers that are not part of the model file are constants and left out; integer buffers stay the model's own.

    Args:
        model: whose tensors are averaged; the average starts as a copy of them.
    """

    def __init__(self, model: nn.Module) -> None:
        state = model.state_dict(keep_vars=True).values()
        # A shared weight has several names; once is enough.
        self.tensors = list(dict.fromkeys(tensor for tensor in state if tensor.is_floating_point()))
        self.values = [tensor.detach().clone() for tensor in self.tensors]
        self.count = 0

    @torch.no_grad()
    def add(self, share: float) -> None:
        """Move the average towards the model: average <- (1 - share) * average + share * model."""
        torch._foreach_lerp_(self.values, self.tensors, share)
        self.count += 1

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Give the model the averaged weights while the block runs.

        Values are exchanged in place, so that a compiled model computes with them too.
        """
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def state(self) -> dict[str, Any]:
        """Return the state for `load`."""
        return {"count": self.count, "values": self.values}

    @torch.no_grad()
    def load(self, state: Mapping[str, Any]) -> None:
        """Restore a state."""
        self.count = state["count"]
        for value, saved in zip(self.values, state["values"], strict=True):
            value.copy_(saved)

    @torch.no_grad()
    def _exchange(self) -> None:
        for tensor, value in zip(self.tensors, self.values, strict=True):
            own = tensor.clone()
            tensor.copy_(value)
            value.copy_(own)


class EmaOfWeights(WeightAverage):
    """Exponential moving average of the weights, with a decay that grows with the number of updates.

    After update n (from 0) the average is d * average + (1 - d) * weights, d = min(decay, 1 - (1 + n)^(-2/3)). So it
    starts with the weights after the first update, and covers about the last n^(2/3) updates until it reaches `decay`;
    without this warm-up, a short training would save mostly the initial weights.

    Reference: Polyak, Juditsky 1992, Acceleration of stochastic approximation by averaging; the warm-up is that of
    timm's ModelEmaV3.

    Args:
        model: whose tensors are averaged.
        decay: the maximum decay, below 1.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model)
        self.decay = decay

    def update(self) -> None:
        """Include the weights after an update."""
        self.add(1 - min(self.decay, 1 - (1 + self.count) ** (-2 / 3)))
