"""Weights that are moved for a look around, and come back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from fgvc_cli.evaluation.sharpness.directions import Direction


class MovableWeights:
    """The parameters of a network that training moves, and where they were at first.

    Attributes:
        parameters: of the network, in its order.
        origin: copies of them.
    """

    def __init__(self, network: nn.Module) -> None:
        self.parameters: list[Tensor] = [p for p in network.parameters() if p.requires_grad]
        self.origin = [parameter.detach().clone() for parameter in self.parameters]

    @torch.no_grad()
    def move(self, *steps: tuple[float, Direction]) -> None:
        """Go from where the weights were at first by so much along each direction; without a step, back there.

        Nothing adds up: each place is computed from the copies, and going back is copying them.
        """
        torch._foreach_copy_(self.parameters, self.origin)
        for length, direction in steps:
            torch._foreach_add_(self.parameters, direction, alpha=length)


@contextmanager
def movable(network: nn.Module) -> Iterator[MovableWeights]:
    """Let a network's weights be moved; afterwards, whatever happened, each has the bits it had."""
    weights = MovableWeights(network)
    try:
        yield weights
    finally:
        weights.move()
