"""Averages of the weights over the updates and the epochs of a training."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


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


class AverageOfEpochs(WeightAverage):
    """Uniform average of the weights after each of the last epochs.

    Reference: Izmailov et al. 2018, Averaging Weights Leads to Wider Optima and Better Generalization, arXiv
    1803.05407.
    """

    def include(self) -> None:
        """Include the model's weights."""
        self.add(1 / (self.count + 1))


@torch.no_grad()
def estimate_statistics(model: nn.Module, batches: Iterable[Tensor], forward: Callable[[Tensor], object]) -> None:
    """Replace the statistics of batch-norm layers in training mode by their means over batches of images.

    Statistics averaged over epochs belong to the weights of each, not to their average. As torch's `update_bn` does it,
    but layers in evaluation mode (those of a frozen backbone) keep theirs.

    Args:
        model: whose layers, in the mode they train in.
        batches: images B,3,S,S, normalized; batches of one image are skipped.
        forward: runs the model on a batch.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.training]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # mean over all batches
    try:
        for images in batches if norms else ():
            if len(images) > 1:
                forward(images)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
