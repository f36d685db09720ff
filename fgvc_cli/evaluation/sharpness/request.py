"""What a person wants to know of the loss around a run's weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fgvc_cli.errors import UsageError
from fgvc_cli.evaluation.request import EvaluationRequest

MULTIPLES = (0.5, 1.0, 2.0, 3.0, 4.0)
"""The radii at which the loss is measured, in multiples of rho; each also on the opposite side."""
RANDOM_DIRECTIONS = 5
"""So many random directions, each followed to both sides: the mean of both has no part of the slope in it."""
REACH = 1.0
"""How far the plane reaches to each side of the weights, in the norms of the filters, as in Li et al. 2018."""
FURTHEST = 1e6
"""The largest radius: weights have norms of about a hundred."""
GRADIENT_PASSES = 3
"""What the gradient costs, in forward passes."""


@dataclass(frozen=True)
class SharpnessRequest:
    """What a person wants to know of the loss around each run's weights.

    Attributes:
        evaluation: which runs, on which images.
        rho: the radius, in the weights' own units (L2 norm over all parameters).
        adaptive_rho: radius of the adaptive measure (ASAM), which has no unit; None: it is not measured.
        limit: so many images of each run's at most, spread over the classes.
        points: along each side of the plane; odd, so that the weights themselves are one.
        seed: of the random directions.

    Raises:
        UsageError: a value is out of its bounds.
    """

    evaluation: EvaluationRequest
    rho: float = 0.05
    adaptive_rho: float | None = None
    limit: int = 128
    points: int = 13
    seed: int = 0

    def __post_init__(self) -> None:
        for name, radius in (("--rho", self.rho), ("--adaptive-rho", self.adaptive_rho)):
            if radius is not None and not 0 < radius <= FURTHEST:
                raise UsageError(f"{name} {radius:g}: a radius must be above 0 and at most {FURTHEST:g}.")
        if self.points < 3 or self.points % 2 == 0:
            raise UsageError(f"--points {self.points}: give an odd number from 3, so that the weights are a point.")
        if self.limit < 1:
            raise UsageError(f"--limit {self.limit}: at least one image is needed.")

    @property
    def signed_multiples(self) -> tuple[float, ...]:
        """Where the loss is measured on a line through the weights, in multiples of rho, from one end to the other."""
        return (*(-multiple for multiple in reversed(MULTIPLES)), *MULTIPLES)

    @property
    def coordinates(self) -> list[float]:
        """Where the loss is measured on either axis of the plane."""
        half = self.points // 2
        return [REACH * step / half for step in range(-half, half + 1)]

    @property
    def passes(self) -> int:
        """How often each image goes through the network, what the gradient costs included."""
        lines = 1 + RANDOM_DIRECTIONS + (self.adaptive_rho is not None)
        return 1 + GRADIENT_PASSES + lines * len(self.signed_multiples) + self.points**2 - 1


def sharpness_request(evaluation: EvaluationRequest, around: Mapping[str, Any]) -> SharpnessRequest:
    """Return the request that the command line means; an option that is None keeps its default.

    Raises:
        UsageError: a value is out of its bounds.
    """
    return SharpnessRequest(evaluation, **{name: value for name, value in around.items() if value is not None})
