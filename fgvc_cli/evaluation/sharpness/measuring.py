"""How far the loss rises around a classifier's weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fgvc_cli.display.progress import Progress
from fgvc_cli.errors import FgvcError
from fgvc_cli.evaluation.computing import ReadyClassifier
from fgvc_cli.evaluation.scoring import evaluation_mode
from fgvc_cli.evaluation.sharpness.directions import (
    Direction,
    adaptive_ascent,
    ascent,
    filter_normalised_direction,
    norm,
    random_direction,
)
from fgvc_cli.evaluation.sharpness.request import GRADIENT_PASSES, RANDOM_DIRECTIONS, SharpnessRequest
from fgvc_cli.evaluation.sharpness.surface import LossSurface, means
from fgvc_cli.evaluation.sharpness.weights import MovableWeights, movable


@dataclass(frozen=True)
class Sharpness:
    """The loss at a classifier's weights and around them, all losses in nats; what overflowed is not finite.

    Attributes:
        images: that the losses are means over.
        classes: K.
        parameters: numbers that were moved.
        weight_norm, gradient_norm: L2, over all of them.
        loss: at the weights.
        gradient: along the gradient, float64 M at the M signed multiples of rho.
        random: along each of D random directions, float64 D,M.
        adaptive: along ASAM's direction, float64 M at the signed multiples of its rho; None if not asked for.
        plane: over two filter-normalised directions, float64 P,P, the second direction from row to row; None if
            measuring it was interrupted.
    """

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

    def rises(self, losses: np.ndarray) -> np.ndarray:
        """Return by how much losses ...,M on lines exceed that at the weights, on the uphill half: ...,M/2."""
        return losses[..., losses.shape[-1] // 2 :] - self.loss

    def random_rises(self) -> np.ndarray:
        """Return the rise along each random direction, the mean of both sides: float64 D,M/2."""
        half = self.random.shape[1] // 2
        back = self.random[:, :half][:, ::-1]
        return (self.random[:, half:] + back) / 2 - self.loss


def measure(
    ready: ReadyClassifier, batches: Sequence[tuple[Tensor, Tensor]], request: SharpnessRequest, bar: Progress
) -> Sharpness:
    """Measure the loss around a classifier's weights, which are afterwards what they were, bit for bit.

    Args:
        ready: the classifier.
        batches: images and labels, as `read_images` returns them.
        request: radii, points and seed.
        bar: advanced by the images that went through, `request.passes` times those of the batches in all.

    Raises:
        FgvcError: the loss at the weights is not finite, the scores carry no gradient, or memory runs out.
        KeyboardInterrupt: before the lines were done; later the plane alone is missing.
    """
    classifier, stage = ready.classifier, _Stage(bar)
    surface = LossSurface(ready, batches, stage.advance)
    generator = torch.Generator().manual_seed(request.seed)
    with ready.memory_explained(), evaluation_mode(classifier), movable(classifier) as weights:
        (loss,) = means([surface.losses()])
        if not np.isfinite(loss):
            raise FgvcError(f"{ready.run}: the loss at its weights is not finite, so there is no minimum to look at.")
        stage.name = "along the gradient"
        gradient = surface.gradient(weights.parameters, GRADIENT_PASSES)
        gradient_norm = float(norm(gradient))
        lines = _Lines(surface, weights, request.signed_multiples)
        along_gradient = lines.along(ascent(gradient), request.rho)
        adaptive = None
        if request.adaptive_rho is not None:
            adaptive = lines.along(adaptive_ascent(gradient, weights.origin), request.adaptive_rho)
        del gradient  # as large as the network
        stage.name = "random directions"
        drawn = (random_direction(weights.origin, generator) for _ in range(RANDOM_DIRECTIONS))
        random = np.stack([lines.along(direction, request.rho) for direction in drawn])
        stage.name = "plane"
        return Sharpness(
            images=len(surface),
            classes=len(classifier.class_names),
            parameters=sum(weight.numel() for weight in weights.origin),
            weight_norm=float(norm(weights.origin)),
            gradient_norm=gradient_norm,
            loss=float(loss),
            gradient=along_gradient,
            random=random,
            adaptive=adaptive,
            plane=_plane(surface, weights, request.coordinates, generator, float(loss)),
        )


@dataclass
class _Stage:
    """Shows what is being measured beside how far it is."""

    bar: Progress
    name: str = "at the weights"

    def advance(self, images: int) -> None:
        self.bar.advance(images, self.name)


@dataclass(frozen=True)
class _Lines:
    """Measures the loss on lines through the weights."""

    surface: LossSurface
    weights: MovableWeights
    multiples: Sequence[float]

    def along(self, direction: Direction, radius: float) -> np.ndarray:
        losses = []
        for multiple in self.multiples:
            self.weights.move((multiple * radius, direction))
            losses.append(self.surface.losses())
        return means(losses)


def _plane(
    surface: LossSurface,
    weights: MovableWeights,
    coordinates: Sequence[float],
    generator: torch.Generator,
    centre: float,
) -> np.ndarray | None:
    """Return the loss over a plane, P,P; None if that was interrupted."""
    first, second = (filter_normalised_direction(weights.origin, generator) for _ in range(2))
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
    rows[half] = np.insert(rows[half], half, centre)
    return np.stack(rows)
