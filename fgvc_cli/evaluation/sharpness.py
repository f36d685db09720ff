"""Sharpness: how far the loss rises around the weights of a classifier."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.evaluation.loss_surface import (
    Direction,
    LossSurface,
    MovableWeights,
    adaptive_ascent,
    ascent,
    filter_normalized_direction,
    means,
    movable,
    norm,
    random_direction,
)
from fgvc_cli.progress import Progress
from fgvc_cli.scoring.model import ReadyClassifier
from fgvc_cli.scoring.scores import evaluation_mode

MULTIPLES = (0.5, 1.0, 2.0, 3.0, 4.0)
"""The radii at which the loss is measured, in multiples of rho, each on both sides."""
RANDOM_DIRECTIONS = 5
"""Number of random directions, each measured on both sides: their mean cancels the slope."""
REACH = 1.0
"""Half the side of the plane, in norms of the filters, as in Li et al. 2018."""
MAX_RADIUS = 1e6
"""Weights have norms of about a hundred."""
GRADIENT_PASSES = 3
"""The cost of the gradient, in forward passes."""


@dataclass(frozen=True)
class SharpnessSettings:
    """Where the loss is measured around the weights.

    Attributes:
        rho: radius in the units of the weights (L2 norm over all parameters).
        adaptive_rho: radius of the adaptive measure (ASAM), which is dimensionless; None: not measured.
        limit: maximum number of images of each run, balanced across classes.
        points: number of points along each side of the plane; odd, so that one of them is at the weights.
        seed: of the random directions.

    Raises:
        UsageError: a value is out of range.
    """

    rho: float = 0.05
    adaptive_rho: float | None = None
    limit: int = 128
    points: int = 13
    seed: int = 0

    def __post_init__(self) -> None:
        for name, radius in (("rho", self.rho), ("adaptive_rho", self.adaptive_rho)):
            if radius is not None and not 0 < radius <= MAX_RADIUS:
                raise UsageError(f"`{name}={radius:g}`: must be above 0 and at most {MAX_RADIUS:g}")
        if not 3 <= self.points <= 1001 or self.points % 2 == 0:
            raise UsageError(
                f"`points={self.points}`: must be an odd number from 3 to 1001, so that one is at the weights"
            )
        if self.limit < 1:
            raise UsageError(f"`limit={self.limit}`: must be at least 1")

    @property
    def signed_multiples(self) -> tuple[float, ...]:
        """Where the loss is measured on a line through the weights, in multiples of rho, from end to end."""
        return (*(-multiple for multiple in reversed(MULTIPLES)), *MULTIPLES)

    @property
    def coordinates(self) -> list[float]:
        """Where the loss is measured along each axis of the plane."""
        half = self.points // 2
        return [REACH * step / half for step in range(-half, half + 1)]

    @property
    def passes(self) -> int:
        """Number of forward passes per image, including the cost of the gradient."""
        lines = 1 + RANDOM_DIRECTIONS + (self.adaptive_rho is not None)
        return 1 + GRADIENT_PASSES + lines * len(self.signed_multiples) + self.points**2 - 1


@dataclass(frozen=True)
class Rise:
    """How far the loss rises at a radius, in nats; None if it is not finite, or not measured.

    Attributes:
        multiple, radius: of rho, and in the units of the weights.
        gradient: along the gradient.
        random, random_deviation: mean over random directions and both sides, and standard deviation over directions.
        adaptive_radius, adaptive: dimensionless radius, and rise along ASAM's direction.
    """

    multiple: float
    radius: float
    gradient: float | None
    random: float | None
    random_deviation: float | None
    adaptive_radius: float | None
    adaptive: float | None


@dataclass(frozen=True)
class Sharpness:
    """The loss at the weights of a classifier and around them, in nats.

    Attributes:
        settings: where it was measured.
        images: number of images that the losses are means over.
        classes: K.
        parameters: number of weights that were moved.
        weight_norm, gradient_norm: L2 norms over all of them.
        loss: at the weights.
        gradient: along the gradient, float64 M at the M signed multiples of rho.
        random: along each of D random directions, float64 D,M.
        adaptive: along ASAM's direction, float64 M at the signed multiples of its rho; None if not measured.
        plane: over two filter-normalized directions, float64 P,P, the second direction from row to row; None if the
            measurement was interrupted.
    """

    settings: SharpnessSettings
    images: int
    classes: int
    parameters: int
    weight_norm: float
    gradient_norm: float
    loss: float
    gradient: np.ndarray
    random: np.ndarray
    adaptive: np.ndarray | None
    plane: np.ndarray | None

    @property
    def radii(self) -> list[float]:
        """The distances from the weights on the lines along the gradient and the random directions."""
        return [multiple * self.settings.rho for multiple in self.settings.signed_multiples]

    def uphill_rises(self, losses: np.ndarray) -> np.ndarray:
        """Return the rise of losses ...,M on lines, on the uphill half: ...,M/2."""
        return losses[..., losses.shape[-1] // 2 :] - self.loss

    def random_rises(self) -> np.ndarray:
        """Return the rise along each random direction, the mean of both sides: float64 D,M/2."""
        half = self.random.shape[1] // 2
        back = self.random[:, :half][:, ::-1]
        return (self.random[:, half:] + back) / 2 - self.loss

    @property
    def rises(self) -> list[Rise]:
        """The rise at each multiple of rho."""
        gradient, random = self.uphill_rises(self.gradient), self.random_rises()
        adaptive, adaptive_rho = self.adaptive, self.settings.adaptive_rho
        return [
            Rise(
                multiple=multiple,
                radius=multiple * self.settings.rho,
                gradient=_finite(gradient[i]),
                random=_finite(random[:, i].mean()),
                random_deviation=_finite(random[:, i].std(ddof=1)),
                adaptive_radius=None if adaptive_rho is None else multiple * adaptive_rho,
                adaptive=None if adaptive is None else _finite(self.uphill_rises(adaptive)[i]),
            )
            for i, multiple in enumerate(MULTIPLES)
        ]

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form; values that are not finite are None."""
        plane = self.plane
        return {
            "images": self.images,
            "parameters": self.parameters,
            "weight_norm": _finite(self.weight_norm),
            "gradient_norm": _finite(self.gradient_norm),
            "loss": self.loss,
            "rises": [asdict(rise) for rise in self.rises],
            "lines": {"radii": self.radii, "gradient": _nested(self.gradient), "random": _nested(self.random)},
            "landscape": None
            if plane is None
            else {"coordinates": self.settings.coordinates, "losses": _nested(plane)},
        }


def _nested(values: np.ndarray) -> list[Any]:
    """Return an array as nested lists, with None for values that are not finite."""
    return [_nested(row) if isinstance(row, np.ndarray) else _finite(row) for row in values]


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def measure(
    ready: ReadyClassifier, batches: Sequence[tuple[Tensor, Tensor]], settings: SharpnessSettings, bar: Progress
) -> Sharpness:
    """Measure the loss around the weights of a classifier, and restore the weights bit for bit.

    Args:
        ready: the classifier.
        batches: images and labels, see `read_images`.
        settings: where to measure.
        bar: advanced by the number of images in each pass; in total `settings.passes` times those of the batches.

    Raises:
        FgvcError: the loss at the weights is not finite, the scores have no gradient, or memory runs out.
        KeyboardInterrupt: before the lines were measured; later, only the plane is missing.
    """
    classifier, stage = ready.classifier, _Stage(bar)
    surface = LossSurface(ready, batches, stage.advance)
    generator = torch.Generator().manual_seed(settings.seed)
    with ready.memory_explained(), evaluation_mode(classifier), movable(classifier) as weights:
        (loss,) = means([surface.losses()])
        if not np.isfinite(loss):
            raise FgvcError(f"{ready.run}: the loss at its weights is not finite, so there is no minimum to measure")
        stage.name = "along the gradient"
        gradient = surface.gradient(weights.parameters, GRADIENT_PASSES)
        gradient_norm = float(norm(gradient))

        def line(direction: Direction, rho: float) -> np.ndarray:
            return _line(surface, weights, direction, [multiple * rho for multiple in settings.signed_multiples])

        along_gradient = line(ascent(gradient), settings.rho)
        adaptive = None
        if settings.adaptive_rho is not None:
            adaptive = line(adaptive_ascent(gradient, weights.origin), settings.adaptive_rho)
        del gradient  # as large as the network
        stage.name = "random directions"
        drawn = (random_direction(weights.origin, generator) for _ in range(RANDOM_DIRECTIONS))
        random = np.stack([line(direction, settings.rho) for direction in drawn])
        stage.name = "plane"
        return Sharpness(
            settings=settings,
            images=len(surface),
            classes=len(classifier.class_names),
            parameters=sum(weight.numel() for weight in weights.origin),
            weight_norm=float(norm(weights.origin)),
            gradient_norm=gradient_norm,
            loss=float(loss),
            gradient=along_gradient,
            random=random,
            adaptive=adaptive,
            plane=_plane(surface, weights, settings.coordinates, generator, float(loss)),
        )


@dataclass
class _Stage:
    """Shows what is being measured with the progress."""

    bar: Progress
    name: str = "at the weights"

    def advance(self, images: int) -> None:
        self.bar.advance(images, self.name)


def _line(surface: LossSurface, weights: MovableWeights, direction: Direction, lengths: Sequence[float]) -> np.ndarray:
    losses = []
    for length in lengths:
        weights.move((length, direction))
        losses.append(surface.losses())
    return means(losses)


def _plane(
    surface: LossSurface,
    weights: MovableWeights,
    coordinates: Sequence[float],
    generator: torch.Generator,
    center: float,
) -> np.ndarray | None:
    """Return the loss over a plane, P,P; None if interrupted."""
    first, second = (filter_normalized_direction(weights.origin, generator) for _ in range(2))
    half, rows = len(coordinates) // 2, []
    try:
        for y in coordinates:
            row = []
            for x in coordinates:
                if x or y:  # the loss at the weights is known
                    weights.move((x, first), (y, second))
                    row.append(surface.losses())
            rows.append(means(row))
    except KeyboardInterrupt:
        return None
    rows[half] = np.insert(rows[half], half, center)
    return np.stack(rows)
