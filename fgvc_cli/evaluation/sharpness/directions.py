"""Directions in the space of a network's weights. A direction has a tensor for each parameter, of its shape."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Direction = list[Tensor]

TINY = 1e-12
"""Added to norms that may be 0."""


def norm(tensors: Sequence[Tensor]) -> Tensor:
    """Return the L2 norm over all entries of all tensors, a scalar on their device."""
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(tensors))))


@torch.no_grad()
def ascent(gradient: Direction) -> Direction:
    """Return g / ||g||, one norm over all parameters: where the loss rises most, to first order.

    SAM climbs along it by rho (Foret et al. 2021, arXiv 2010.01412, equation 2).
    """
    return torch._foreach_div(gradient, norm(gradient) + TINY)  # type: ignore[return-value]


@torch.no_grad()
def adaptive_ascent(gradient: Direction, weights: Sequence[Tensor]) -> Direction:
    """Return w^2 g / || |w| g ||: where the loss rises most, to first order, if steps are measured relative to weights.

    ASAM climbs along it by its rho (Kwon et al. 2021, arXiv 2102.11600, section 3). The rise does not change if one
    layer's weights are multiplied by a number and the next one's divided by it.
    """
    scaled = torch._foreach_mul(gradient, torch._foreach_abs(list(weights)))
    length = norm(scaled) + TINY
    torch._foreach_mul_(scaled, torch._foreach_abs(list(weights)))
    torch._foreach_div_(scaled, length)
    return scaled  # type: ignore[return-value]


@torch.no_grad()
def random_direction(weights: Sequence[Tensor], generator: torch.Generator) -> Direction:
    """Return a direction drawn evenly from the sphere of norm 1.

    Args:
        weights: give shapes, device and memory format.
        generator: on the CPU, so that every device gets the same direction.
    """
    drawn = _normal(weights, generator)
    torch._foreach_div_(drawn, norm(drawn))
    return drawn


@torch.no_grad()
def filter_normalised_direction(weights: Sequence[Tensor], generator: torch.Generator) -> Direction:
    """Return a random direction whose filters each have the norm of the network's own filter.

    d_ij <- d_ij / ||d_ij|| * ||w_ij|| for the j-th filter of the i-th layer (Li et al. 2018, Visualizing the Loss
    Landscape of Neural Nets, arXiv 1712.09913, section 4): a plane of such directions looks alike for networks that
    differ by the scale of their weights alone. A filter is what makes one output: a slice of the first dimension.
    Parameters of one dimension, biases and those of norms, stay where they are, as in the authors' code.

    Args:
        weights: as they are at the minimum.
        generator: on the CPU, so that every device gets the same direction.
    """
    drawn = _normal(weights, generator)
    for direction, weight in zip(drawn, weights, strict=True):
        if weight.dim() <= 1:
            direction.zero_()
        else:
            across = tuple(range(1, weight.dim()))
            own, random = (torch.linalg.vector_norm(t, dim=across, keepdim=True) for t in (weight, direction))
            direction.mul_(own / (random + TINY))
    return drawn


def _normal(weights: Sequence[Tensor], generator: torch.Generator) -> Direction:
    return [
        torch.empty_like(weight).copy_(torch.randn(weight.shape, generator=generator, dtype=torch.float32))
        for weight in weights
    ]
