"""Sharpness: how far the loss rises around the weights of runs."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fgvc_cli import files
from fgvc_cli._version import __version__
from fgvc_cli.contracts import Split
from fgvc_cli.data.splits import balanced_indices, subset
from fgvc_cli.devices import describe_device
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.evaluation.evaluate import EvaluationRequest
from fgvc_cli.evaluation.landscape import draw_landscape
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
    read_images,
)
from fgvc_cli.evaluation.split_selection import SelectedSplit, results_folder, select_split
from fgvc_cli.formatting import run_labels
from fgvc_cli.progress import Progress, progress
from fgvc_cli.registry import Registry
from fgvc_cli.runs.folder import choose_new_folder
from fgvc_cli.runs.model_file import read_class_names, read_metadata
from fgvc_cli.scoring import results
from fgvc_cli.scoring.model import Computing, ReadyClassifier, load
from fgvc_cli.scoring.results import dataset_record
from fgvc_cli.scoring.scores import evaluation_mode

logger = logging.getLogger(__name__)

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


@dataclass(frozen=True)
class RunImages:
    """The images for a run.

    Attributes:
        subject: the split that they are of.
        split: so many of them as are wanted, spread over the classes.
    """

    subject: SelectedSplit
    split: Split

    @property
    def words(self) -> str:
        """In words, which images they are."""
        chosen, available = len(self.split), len(self.subject.split)
        source = f"{self.subject.split.name} of {self.subject.data or self.subject.dataset}"
        return f"{chosen}, {source}" + f", spread over its {available}" * (chosen < available)


def select_images(request: SharpnessRequest, registry: Registry) -> list[RunImages]:
    """Choose the images for each run: of those it was trained on, unless others are named.

    Raises:
        UsageError: there is no such split, or classes are unknown to a run.
        FgvcError: images or a run are not there.
    """
    wanted = replace(request.evaluation.subject, learnt=True)
    chosen = []
    for model in request.evaluation.models:
        subject = select_split(wanted, model.parent, read_class_names(model), registry)
        indices = balanced_indices(subject.split.labels, request.limit)
        chosen.append(RunImages(subject, subset(subject.split, indices, subject.split.name, subject.split.origin)))
    return chosen


def image_notes(chosen: Sequence[RunImages], runs: Sequence[Path]) -> list[str]:
    """Return lines on runs that are measured on images they were not trained on, or on other images than each other."""
    notes = [
        f"{run}: these are not images that it was trained on, whose loss was minimized."
        for run, images in zip(runs, chosen, strict=True)
        if images.subject.is_own and images.subject.met != "learnt"
    ]
    different = {(str(images.subject.data or images.subject.dataset), *images.split.keys) for images in chosen}
    if len(different) > 1:
        notes.append("The runs are measured on different images, each on its own.")
    return notes


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
        plane: over two filter-normalized directions, float64 P,P, the second direction from row to row; None if
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
    center: float,
) -> np.ndarray | None:
    """Return the loss over a plane, P,P; None if that was interrupted."""
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


@dataclass(frozen=True)
class MeasuredRun:
    """What was measured of a run.

    Attributes:
        run: what a person names it by.
        images: that it was measured on.
        failures: why images could not be read, by key.
        sharpness: the losses.
        device: computed them, in words.
        precision: "fp32" or "bf16".
    """

    run: str
    images: RunImages
    failures: dict[str, str]
    sharpness: Sharpness
    device: str
    precision: str

    @classmethod
    def of(
        cls, ready: ReadyClassifier, images: RunImages, failures: dict[str, str], sharpness: Sharpness
    ) -> MeasuredRun:
        """Keep what outlives the classifier."""
        device = describe_device(ready.classifier.device)
        return cls(str(ready.run), images, failures, sharpness, device, ready.precision)


def summarize(
    measured: Sequence[MeasuredRun], request: SharpnessRequest, notes: Sequence[str], interrupted: bool, seconds: float
) -> dict[str, Any]:
    """Return what `sharpness.json` holds; losses and rises in nats, None where they are not finite.

    Args:
        measured: the runs.
        request: what was asked for.
        notes: what a person should know when reading the figures.
        interrupted: whether something is missing because it was.
        seconds: wall time.
    """
    failures = {key: reason for each in measured for key, reason in each.failures.items()}
    return {
        "runs": [_entry(each, request) for each in measured],
        "rho": request.rho,
        "adaptive_rho": request.adaptive_rho,
        "limit": request.limit,
        "points": request.points,
        "random_directions": RANDOM_DIRECTIONS,
        "seed": request.seed,
        "notes": list(notes),
        "interrupted": interrupted,
        "failed": len(failures),
        "failures": [{"key": key, "reason": reason} for key, reason in failures.items()],
        "seconds": round(seconds, 3),
        "device": measured[0].device,
        "precision": measured[0].precision,
        "fgvc": __version__,
    }


def _entry(measured: MeasuredRun, request: SharpnessRequest) -> dict[str, Any]:
    subject, found = measured.images.subject, measured.sharpness
    return {
        "run": measured.run,
        "dataset": dataset_record(subject.dataset, subject.data),
        "split": subject.split.name,
        "origin": subject.split.origin,
        "classes": found.classes,
        "images_available": len(subject.split),
        "images": found.images,
        "parameters": found.parameters,
        "weight_norm": _number(found.weight_norm),
        "gradient_norm": _number(found.gradient_norm),
        "loss": found.loss,
        "rises": _rises(found, request),
        "lines": {
            "radii": [multiple * request.rho for multiple in request.signed_multiples],
            "gradient": _numbers(found.gradient),
            "random": _numbers(found.random),
        },
        "landscape": None
        if found.plane is None
        else {"coordinates": request.coordinates, "losses": _numbers(found.plane)},
    }


def _rises(found: Sharpness, request: SharpnessRequest) -> list[dict[str, Any]]:
    """Return for each multiple of rho how far the loss rises: a row of the table that is printed."""
    gradient, random = found.rises(found.gradient), found.random_rises()
    adaptive = None if found.adaptive is None else found.rises(found.adaptive)
    return [
        {
            "multiple": multiple,
            "radius": multiple * request.rho,
            "gradient": _number(gradient[i]),
            "random": _number(random[:, i].mean()),
            "random_deviation": _number(random[:, i].std(ddof=1)),
            "adaptive_radius": None if request.adaptive_rho is None else multiple * request.adaptive_rho,
            "adaptive": None if adaptive is None else _number(adaptive[i]),
        }
        for i, multiple in enumerate(MULTIPLES)
    ]


def _numbers(values: np.ndarray) -> list[Any]:
    """Return an array as nested lists, None where a value is not finite."""
    return [_numbers(row) if isinstance(row, np.ndarray) else _number(row) for row in values]


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


FOLDER = "sharpness"
"""Where the results of several runs go that are given no folder, in the current one."""
PICTURE = "landscape.png"


@dataclass(frozen=True)
class SharpnessReport:
    """What came out.

    Attributes:
        summary: what `sharpness.json` holds.
        files: what was written.
    """

    summary: dict[str, Any]
    files: list[Path]


def measure_sharpness(request: SharpnessRequest, registry: Registry) -> SharpnessReport:
    """Measure the loss around each run's weights, and write figures and a picture.

    Args:
        request: what is wanted. Precision "auto" means fp32 here: what is measured are small differences.
        registry: finds datasets.

    Raises:
        UsageError: the images that are meant do not exist, or a folder for the results is refused.
        FgvcError: a run or its images are not there, none can be read, a loss at the weights is not finite, memory
            runs out, or nothing can be written.
        KeyboardInterrupt: before anything was measured.
    """
    started = time.perf_counter()
    chosen, runs = select_images(request, registry), request.evaluation.runs
    folder = _folder(request, chosen)
    notes = [*image_notes(chosen, runs), *_network_notes(request.evaluation.models)]
    for line in dict.fromkeys((*(f"images     {images.words}" for images in chosen), *notes)):
        logger.info(line)
    measured, interrupted = _measure_each(request, chosen)
    summary = summarize(measured, request, notes, interrupted, time.perf_counter() - started)
    return SharpnessReport(summary, _write(folder, summary))


def _write(folder: Path, summary: dict[str, Any]) -> list[Path]:
    """Write the figures, and the picture if there is a plane; return the files."""
    document, picture = folder / results.SHARPNESS, folder / PICTURE
    files.write_json(document, summary)  # first: it may have taken hours
    if not any(entry["landscape"] for entry in summary["runs"]):
        picture.unlink(missing_ok=True)  # an earlier one beside the new figures would deceive
        return [document]
    draw_landscape(picture, summary)
    return [document, picture]


def _measure_each(request: SharpnessRequest, chosen: Sequence[RunImages]) -> tuple[list[MeasuredRun], bool]:
    """Measure one run after the other; return those that were, and whether that was interrupted.

    Raises:
        KeyboardInterrupt: before anything was measured.
    """
    measured: list[MeasuredRun] = []
    try:
        for model, images in zip(request.evaluation.models, chosen, strict=True):
            measured.append(_measure_one(request, model, images))
            if measured[-1].sharpness.plane is None:
                return measured, True
    except KeyboardInterrupt:
        if not measured:
            raise
        return measured, True
    return measured, False


def _measure_one(request: SharpnessRequest, model: Path, images: RunImages) -> MeasuredRun:
    ready = load(model, _computing(request.evaluation.computing))
    (name,), count = run_labels([str(ready.run)]), len(images.split)
    with progress(f"{name}: reading", count) as bar:
        batches, failures = read_images(ready, images.split, bar.advance)
    readable = count - len(failures)
    with progress(name, request.passes * readable) as bar:
        sharpness = measure(ready, batches, request, bar)
    return MeasuredRun.of(ready, images, failures, sharpness)


def _computing(computing: Computing) -> Computing:
    return replace(computing, precision="fp32") if computing.precision == "auto" else computing


def _folder(request: SharpnessRequest, chosen: Sequence[RunImages]) -> Path:
    evaluation = request.evaluation
    if len(evaluation.models) > 1:
        return choose_new_folder(evaluation.out, evaluation.force, FOLDER, "the results")
    return results_folder(evaluation.models[0].parent, chosen[0].subject, evaluation.out, evaluation.force)


def _network_notes(models: Sequence[Path]) -> list[str]:
    """Say where the runs are not the same network, of which no radius says the same."""
    networks = []
    for model in models:
        document = read_metadata(model)
        parts = [document.get("components", {}).get(kind, {}) for kind in ("backbone", "head")]
        networks.append([(part.get("name"), part.get("options")) for part in parts])
    if all(network == networks[0] for network in networks):
        return []
    return ["The runs are different networks: a radius is not the same thing in each, and their rises do not compare."]
