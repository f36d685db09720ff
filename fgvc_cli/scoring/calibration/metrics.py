"""Metrics of a calibrated classifier: whether its promises hold, and how well it finds unknown images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from fgvc_cli.scoring.calibration.novelty import Detection, ScoreName
from fgvc_cli.scoring.calibration.stored import Calibration, Decisions
from fgvc_cli.scoring.calibration.temperature import FLOOR
from fgvc_cli.scoring.scores import Scores, expected_calibration_error


@dataclass(frozen=True)
class CalibratedMetrics:
    """Metrics of the calibrated probabilities, the answers and the prediction sets.

    Attributes:
        temperature: of the probabilities.
        loss: mean cross entropy in nats; None if no image has finite scores.
        calibration_error: expected calibration error.
        answered: fraction of the images with an answer.
        precision: fraction of the answers that are right; None without an answer.
        uncertain, unfamiliar: fractions without an answer, for this reason.
        promised_precision: None if none is promised.
        coverage: fraction of the prediction sets that contain the true class; None without sets.
        set_size: mean number of classes in a set.
        promised_coverage: None without sets.
    """

    temperature: float
    loss: float | None
    calibration_error: float
    answered: float
    precision: float | None
    uncertain: float
    unfamiliar: float
    promised_precision: float | None = None
    coverage: float | None = None
    set_size: float | None = None
    promised_coverage: float | None = None

    @classmethod
    def of(cls, calibration: Calibration, decisions: Decisions, scores: Scores) -> CalibratedMetrics:
        """Compute them for labeled images; images whose scores are not finite are wrong, but have no loss."""
        labels, finite = scores.labels, scores.predicted >= 0
        true = decisions.probabilities[np.arange(len(labels)), labels][finite].astype(np.float64)
        right = scores.predicted == labels
        answered, members = decisions.answered, decisions.members
        calibrated = Scores(decisions.probabilities, labels, scores.keys, float("nan"))
        covered = None if members is None else members[np.arange(len(labels)), labels]
        return cls(
            temperature=calibration.temperature,
            loss=float(-np.log(np.maximum(true, FLOOR)).mean()) if finite.any() else None,
            calibration_error=expected_calibration_error(calibrated),
            answered=float(answered.mean()),
            precision=float(right[answered].mean()) if answered.any() else None,
            uncertain=float((decisions.uncertain & ~decisions.unfamiliar).mean()),
            unfamiliar=float(decisions.unfamiliar.mean()),
            promised_precision=None if calibration.precision is None else calibration.precision.precision,
            coverage=None if covered is None else float(covered.mean()),
            set_size=None if members is None else float(members.sum(axis=1).mean()),
            promised_coverage=None if calibration.sets is None else calibration.sets.coverage,
        )


@dataclass(frozen=True)
class UnknownMetrics:
    """How images of unknown classes are told from those of known ones.

    Attributes:
        source: folder or dataset of the unknown images.
        images: number of unknown images that could be read.
        score: novelty score in use; None without a calibration.
        answered: fraction of the unknown images that get an answer all the same; None without a calibration.
        detection: for each novelty score, the known images being those of the evaluated split.
        failures: why an unknown image could not be read, by its path.
    """

    source: str
    images: int
    score: str | None
    answered: float | None
    detection: Mapping[str, Detection]
    failures: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        source: str,
        known: Mapping[ScoreName, np.ndarray],
        unknown: Mapping[ScoreName, np.ndarray],
        calibration: Calibration | None,
        decisions: Decisions | None,
        failures: Mapping[str, str],
    ) -> UnknownMetrics:
        """Compute them of the novelty scores of known and unknown images; those that are not finite are left out."""
        rule = None if calibration is None else calibration.novelty
        thresholds = {} if rule is None else rule.thresholds
        return cls(
            source=source,
            images=len(next(iter(unknown.values()))),
            score=None if rule is None else rule.score,
            answered=None if decisions is None else float(decisions.answered.mean()),
            detection={
                name: Detection.of(_finite(known[name]), _finite(unknown[name]), thresholds.get(name)) for name in known
            },
            failures=failures,
        )

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> UnknownMetrics:
        """Undo `as_json`."""
        detection = {name: Detection(**values) for name, values in document["detection"].items()}
        return cls(**{**document, "detection": detection})


def _finite(values: np.ndarray) -> np.ndarray:
    return values[np.isfinite(values)]
