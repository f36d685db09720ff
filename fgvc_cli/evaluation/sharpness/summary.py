"""What is recorded of the loss around runs' weights: the document that `sharpness.json` holds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fgvc_cli._version import __version__
from fgvc_cli.devices import describe_device
from fgvc_cli.evaluation.computing import ReadyClassifier
from fgvc_cli.evaluation.sharpness.images import Chosen
from fgvc_cli.evaluation.sharpness.measuring import Sharpness
from fgvc_cli.evaluation.sharpness.request import MULTIPLES, RANDOM_DIRECTIONS, SharpnessRequest
from fgvc_cli.evaluation.summary import dataset_record


@dataclass(frozen=True)
class Measured:
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
    images: Chosen
    failures: dict[str, str]
    sharpness: Sharpness
    device: str
    precision: str

    @classmethod
    def of(cls, ready: ReadyClassifier, images: Chosen, failures: dict[str, str], sharpness: Sharpness) -> Measured:
        """Keep what outlives the classifier."""
        device = describe_device(ready.classifier.device)
        return cls(str(ready.run), images, failures, sharpness, device, ready.precision)


def summarise(
    measured: Sequence[Measured], request: SharpnessRequest, notes: Sequence[str], interrupted: bool, seconds: float
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


def _entry(measured: Measured, request: SharpnessRequest) -> dict[str, Any]:
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
