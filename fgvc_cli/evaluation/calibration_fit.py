"""Fit a calibration to the scores of held-out images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from fgvc_cli.data.splits import quoted_names
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.formatting import counted, percent
from fgvc_cli.scoring.calibration.conformal import class_thresholds, images_for_share, lower_quantile, set_threshold
from fgvc_cli.scoring.calibration.novelty import SCORES, ScoreName
from fgvc_cli.scoring.calibration.selective import certified_threshold, first_test, images_for_precision
from fgvc_cli.scoring.calibration.stored import Calibration, NoveltyRule, PrecisionRule, SetRule
from fgvc_cli.scoring.calibration.temperature import fit_temperature, softmax
from fgvc_cli.scoring.observation import Observation
from fgvc_cli.scoring.scores import Scores, expected_calibration_error

COVERAGE = 0.9
"""Coverage of the prediction sets, unless another is wished."""
KEEP = 0.95
"""Fraction of the known images that are not unfamiliar, unless another is wished."""
SAME = 1e-4
"""A score whose values differ by less says nothing: the energy of log-probabilities is 0 for every image."""
FEW_IMAGES = 100
"""With fewer images, the temperature is reported as rough."""


@dataclass(frozen=True)
class CalibrationSettings:
    """What to promise.

    Attributes:
        precision: of the answers, in (0, 1); None: answer whatever the probability.
        confidence: confidence level of the precision, in (0, 1).
        coverage: of the prediction sets, in (0, 1); None: `COVERAGE`, or no sets with too few images.
        by_class: whether the coverage holds for each class.
        score: novelty score; None: the first of `SCORES` that is available; "none": no image is unfamiliar.
        keep: fraction of images of known classes that are not rejected as unfamiliar, in (0, 1); None: `KEEP`, or no
            image is unfamiliar with too few images.

    Raises:
        UsageError: a number is not between 0 and 1, or there is no such score.
    """

    precision: float | None = None
    confidence: float = 0.95
    coverage: float | None = None
    by_class: bool = False
    score: ScoreName | Literal["none"] | None = None
    keep: float | None = None

    def __post_init__(self) -> None:
        for name in ("precision", "confidence", "coverage", "keep"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 1:
                raise UsageError(f"`{name}={value:g}` must be between 0 and 1, such as 0.95")
        if self.score not in (None, "none", *SCORES):
            raise UsageError(f"`score={self.score}`: unknown; choose from {', '.join((*SCORES, 'none'))}")


class Fit:
    """Everything that is fitted to the scores of the calibration images; images with infinite scores are left out."""

    def __init__(
        self, scores: Scores, observation: Observation, settings: CalibrationSettings, class_names: Sequence[str]
    ) -> None:
        finite = scores.predicted >= 0
        self.notes: list[str] = []
        self.settings, self.class_names = settings, class_names
        self.labels = scores.labels[finite]
        self.correct = (scores.predicted == scores.labels)[finite]
        self.novelty_scores = {name: values[finite] for name, values in observation.scores.items()}
        log_probabilities = observation.log_probabilities[finite]
        self.temperature = self._temperature(log_probabilities)
        self.probabilities = softmax(log_probabilities.astype(np.float64) / self.temperature).astype(np.float32)
        self.confidence = self.probabilities.max(axis=1)
        keys = [key for key, kept in zip(scores.keys, finite, strict=True) if kept]
        before, after = (
            Scores(rows, self.labels, keys, float("nan")) for rows in (np.exp(log_probabilities), self.probabilities)
        )
        self.errors = expected_calibration_error(before), expected_calibration_error(after)
        loss, scaled = (_loss(log_probabilities, self.labels, t) for t in (1.0, self.temperature))
        self.losses = loss, scaled
        novelty = self._novelty()
        self.familiar = np.ones(len(self), bool)
        if novelty is not None:
            self.familiar = self.novelty_scores[novelty.score] >= np.float32(novelty.thresholds[novelty.score])
        self.calibration = Calibration(
            temperature=self.temperature,
            images=len(self),
            dataset={},
            split="",
            precision=self._precision(),
            sets=self._sets(),
            novelty=novelty,
        )

    def __len__(self) -> int:
        return len(self.labels)

    def _temperature(self, log_probabilities: np.ndarray) -> float:
        found = fit_temperature(log_probabilities, self.labels)
        images = counted(len(self), "image")
        if found is None:
            self.notes.append(
                f"the predictions for {images} are all right: there is no temperature to fit, and probabilities stay "
                "as they are; calibrate on more images"
            )
        elif len(self) < FEW_IMAGES:
            self.notes.append(f"the temperature is rough: it is fitted to {images}")
        return found or 1.0

    def _novelty(self) -> NoveltyRule | None:
        wished, keep = self.settings.score, self.settings.keep or KEEP
        if wished == "none":
            return None
        if not self._enough(
            wished or self.settings.keep, f"Keeping {percent(keep)} of the known images", images_for_share(keep)
        ):
            return None
        informative = [name for name, values in self.novelty_scores.items() if np.ptp(values) > SAME]
        if wished is not None and wished not in informative:
            raise UsageError(
                f"`score={wished}`: it is the same for every image, because the scores of this classifier are "
                f"log-probabilities; choose from {', '.join(informative)}"
            )
        if not informative:
            self.notes.append("every image has the same scores: none is unfamiliar")
            return None
        score = next(name for name in SCORES if name in informative) if wished is None else wished
        thresholds: dict[str, float] = {name: lower_quantile(self.novelty_scores[name], keep) for name in informative}
        return NoveltyRule(score, keep, thresholds)

    def _precision(self) -> PrecisionRule | None:
        precision, level = self.settings.precision, self.settings.confidence
        if precision is None:
            return None
        confidence, correct = self.confidence[self.familiar], self.correct[self.familiar]
        threshold = certified_threshold(confidence, correct, precision, level)
        if threshold is not None:
            answered = self.familiar & (self.confidence > threshold)
            return PrecisionRule(precision, level, threshold, float(answered.mean()))
        least, images = images_for_precision(precision, level), len(correct)
        promise = f"a precision of {percent(precision)} at a confidence level of {percent(level)}"
        if images < least:
            raise FgvcError(
                f"{promise} takes at least {least} images, all of them answered correctly; there are {images}: "
                "calibrate on more images, or lower `precision`"
            )
        first = first_test(images, precision, level)
        wrong = int((~correct[np.argsort(-confidence, kind="stable")[:first]]).sum())
        grid = [value / 100 for value in range(int(100 * precision), 0, -1)]
        provable = next((p for p in grid if certified_threshold(confidence, correct, p, level) is not None), None)
        advice = "" if provable is None else f"; these images prove `precision={provable:g}`"
        raise FgvcError(
            f"{promise} cannot be proven: of the {first} most confident of {images} images, {wrong} are wrong{advice}. "
            "Lower it, or calibrate on more images"
        )

    def _sets(self) -> SetRule | None:
        coverage, least = self.settings.coverage or COVERAGE, images_for_share(self.settings.coverage or COVERAGE)
        if not self.settings.by_class:
            if not self._enough(self.settings.coverage, f"A coverage of {percent(coverage)}", least):
                return None
            return SetRule(coverage, [set_threshold(self.probabilities, self.labels, coverage)])
        counts = np.bincount(self.labels, minlength=len(self.class_names))
        if few := [name for name, count in zip(self.class_names, counts, strict=True) if count < least]:
            raise FgvcError(
                f"A coverage of {percent(coverage)} of each class takes at least {counted(least, 'image')} of each; "
                f"{counted(len(few), 'class has', 'classes have')} fewer: {quoted_names(few)}. Calibrate on more "
                "images, or lower `coverage`"
            )
        return SetRule(coverage, class_thresholds(self.probabilities, self.labels, coverage))

    def _enough(self, wished: object, promise: str, least: int) -> bool:
        """Return whether there are enough images for a promise; if not, refuse one that was asked for."""
        if len(self) >= least:
            return True
        text = f"{promise} takes at least {counted(least, 'image')}; there are {len(self)}"
        if wished is not None:
            raise FgvcError(f"{text}. Calibrate on more images, or promise less")
        self.notes.append(f"{text}: left out")
        return False


def _loss(log_probabilities: np.ndarray, labels: np.ndarray, temperature: float) -> float:
    scaled = torch.from_numpy(log_probabilities).double() / temperature
    return float(torch.nn.functional.cross_entropy(scaled, torch.from_numpy(labels)))
