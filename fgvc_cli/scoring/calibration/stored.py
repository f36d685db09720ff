"""The calibration in a model file, and the decisions that follow from it."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from fgvc_cli.errors import FgvcError
from fgvc_cli.files import mismatch
from fgvc_cli.formatting import percent
from fgvc_cli.runs.model_file import load_calibration, save_calibration
from fgvc_cli.scoring.calibration.novelty import LOGIT_SCORES, TEXTS, ClassMeans, ScoreName
from fgvc_cli.scoring.calibration.temperature import LIMITS, tempered

logger = logging.getLogger(__name__)

Reason = Literal["", "uncertain", "unfamiliar"]
"""Why an image has no answer: its probability is too low, or it is unlike everything seen in training."""


@dataclass(frozen=True)
class PrecisionRule:
    """Images whose calibrated probability is not above the threshold are "uncertain".

    Attributes:
        precision: of the answers; promised with the confidence level `confidence`.
        confidence: see `certified_threshold`.
        threshold: a probability.
        answered: fraction of the calibration images that are answered.
    """

    precision: float
    confidence: float
    threshold: float
    answered: float


@dataclass(frozen=True)
class SetRule:
    """The prediction set has every class whose calibrated probability reaches its threshold, and the most probable one.

    Attributes:
        coverage: promised fraction of the sets that contain the true class.
        thresholds: one, or one for each class.
        method: of the sets.
    """

    coverage: float
    thresholds: Sequence[float]
    method: Literal["lac"] = "lac"

    @property
    def by_class(self) -> bool:
        """Whether the coverage is promised for each class."""
        return len(self.thresholds) > 1


@dataclass(frozen=True)
class NoveltyRule:
    """Images with a score below its threshold are "unfamiliar".

    Attributes:
        score: the one in use.
        keep: promised fraction of the images of known classes that are kept.
        thresholds: for each score that the calibration images have.
    """

    score: ScoreName
    keep: float
    thresholds: Mapping[str, float]

    def of_logits(self) -> NoveltyRule | None:
        """Return the rule for a score of the logits alone; None if there is no threshold for one."""
        name = next((name for name in LOGIT_SCORES if name in self.thresholds), None)
        return None if name is None else replace(self, score=name)


@dataclass(frozen=True)
class Decisions:
    """What a calibration decides for N images.

    Attributes:
        probabilities: float32 N,K, calibrated.
        uncertain, unfamiliar: bool N.
        members: bool N,K, the prediction sets; None without a rule for sets.
    """

    probabilities: np.ndarray
    uncertain: np.ndarray
    unfamiliar: np.ndarray
    members: np.ndarray | None

    @property
    def answered(self) -> np.ndarray:
        """bool N, whether the most probable class is the answer."""
        return ~(self.uncertain | self.unfamiliar)

    def reason(self, image: int) -> Reason:
        """Return why an image has no answer; "" if it has one."""
        return "unfamiliar" if self.unfamiliar[image] else "uncertain" if self.uncertain[image] else ""

    def set_of(self, image: int) -> list[int]:
        """Return the classes in the prediction set of an image, most probable first."""
        assert self.members is not None
        classes = np.flatnonzero(self.members[image])
        chosen: list[int] = classes[np.argsort(-self.probabilities[image, classes], kind="stable")].tolist()
        return chosen


@dataclass(frozen=True)
class Calibration:
    """What `fgvc calibrate` learned from held-out images; a model file carries it.

    Attributes:
        temperature: divides the logits.
        images: number of calibration images.
        dataset: their dataset: "name", and "data": its folder or file, or None.
        split: name of their split.
        tta: test-time augmentation that it was computed with, and that it is valid for.
        precision, sets, novelty: the rules; None without.
        means: class means, for the score "cosine"; None without.
    """

    temperature: float
    images: int
    dataset: Mapping[str, str | None]
    split: str
    tta: Sequence[str] = ()
    precision: PrecisionRule | None = None
    sets: SetRule | None = None
    novelty: NoveltyRule | None = None
    means: ClassMeans | None = None

    def decide(self, probabilities: np.ndarray, scores: Mapping[ScoreName, np.ndarray]) -> Decisions:
        """Decide for N images.

        Args:
            probabilities: float32 N,K, of the logits as they are. Images without finite probabilities are uncertain.
            scores: N of each novelty score that is available; that of the rule is.
        """
        calibrated = tempered(probabilities, self.temperature)
        confidence = calibrated.max(axis=1)
        uncertain = ~np.isfinite(confidence)
        if self.precision is not None:
            uncertain |= ~(confidence > np.float32(self.precision.threshold))
        unfamiliar = np.zeros(len(calibrated), bool)
        if (rule := self.novelty) is not None:
            unfamiliar = scores[rule.score] < np.float32(rule.thresholds[rule.score])
        members = None
        if self.sets is not None:
            members = calibrated >= np.asarray(self.sets.thresholds, np.float32)
            members[np.arange(len(members)), calibrated.argmax(axis=1)] = True
        return Decisions(calibrated, uncertain, unfamiliar, members)

    def is_of(self, dataset: Mapping[str, str | None], split: str) -> bool:
        """Return whether it was fitted to this split of this dataset."""
        return split == self.split and dict(dataset) == dict(self.dataset)

    @cached_property
    def lines(self) -> list[str]:
        """What it does and promises for new images like the calibration images, one line for each rule."""
        lines = [
            f"calibrated: probabilities at temperature {self.temperature:.3g} ({self.images} images of {self.split})"
        ]
        if (precision := self.precision) is not None:
            rule = f"unknown (uncertain) unless the probability is above {percent(precision.threshold)}"
            lines.append(
                f"precision: above {percent(precision.precision)} of the answers are right, at a confidence level of "
                f"{percent(precision.confidence)}; {rule if precision.threshold else 'that of all images'}"
            )
        if (sets := self.sets) is not None:
            each = "their thresholds" if sets.by_class else f"a probability of {percent(sets.thresholds[0])}"
            lines.append(
                f"sets: at least {percent(sets.coverage)}{' of those of each class' * sets.by_class} contain the true "
                f"class; classes that reach {each}"
            )
        if (novelty := self.novelty) is not None:
            lines.append(
                f"familiarity: at least {percent(novelty.keep)} of the images of known classes are kept; unknown "
                f"(unfamiliar) if the {TEXTS[novelty.score]} is below {novelty.thresholds[novelty.score]:.4g}"
            )
        return lines

    def as_json(self) -> dict[str, Any]:
        """Return the form that a model file has; without `means`, which are tensors."""
        document = asdict(replace(self, means=None))
        return {name: value for name, value in document.items() if value is not None}

    @classmethod
    def from_json(cls, document: Mapping[str, Any], means: ClassMeans | None = None) -> Calibration:
        """Undo `as_json`.

        Raises:
            KeyError, TypeError, ValueError: something is missing, has another type or is out of range.
        """
        rules = {
            "precision": _rule(PrecisionRule, document.get("precision")),
            "sets": _rule(SetRule, document.get("sets")),
            "novelty": _rule(NoveltyRule, document.get("novelty")),
        }
        plain = {name: document[name] for name in ("temperature", "images", "dataset", "split")}
        found = cls(**plain, **rules, tta=tuple(document.get("tta", ())), means=means)  # type: ignore[arg-type]
        if where := mismatch(replace(found, means=None), cls):
            raise TypeError(f"{where} has another type")
        numbers = [found.temperature]
        for rule, names in ((found.precision, ("precision", "threshold")), (found.sets, ("coverage",))):
            numbers += [] if rule is None else [getattr(rule, name) for name in names]
        numbers += [] if found.sets is None else found.sets.thresholds
        numbers += [] if found.novelty is None else found.novelty.thresholds.values()
        if not all(map(math.isfinite, numbers)) or not LIMITS[0] <= found.temperature <= LIMITS[1]:
            raise ValueError("a number is out of range")
        if found.novelty is not None and found.novelty.score not in found.novelty.thresholds:
            raise KeyError(found.novelty.score)
        return found

    @classmethod
    def read(cls, file: Path) -> Calibration | None:
        """Return the calibration of a model file; None without one.

        Raises:
            FgvcError: it is damaged.
        """
        stored = load_calibration(file)
        if stored is None:
            return None
        document, tensors = stored
        try:
            means = ClassMeans(tensors["center"], tensors["means"]) if tensors else None
            found = cls.from_json(document, means)
        except (KeyError, TypeError, ValueError) as error:
            raise FgvcError(
                f"{file} is damaged: its calibration is invalid ({error}). Calibrate again (fgvc calibrate)"
            ) from error
        if found.novelty is not None and found.novelty.score == "cosine" and means is None:  # an exported model
            return replace(found, novelty=found.novelty.of_logits())
        return found

    def write(self, file: Path) -> None:
        """Put it into a model file, in place of an earlier one."""
        tensors = {} if self.means is None else {"center": self.means.center, "means": self.means.means}
        save_calibration(file, self.as_json(), tensors)


Rule = TypeVar("Rule", PrecisionRule, SetRule, NoveltyRule)


def _rule(of: type[Rule], fields: Mapping[str, Any] | None) -> Rule | None:
    return None if fields is None else of(**fields)


def find_calibration(file: Path, classes: int, tta: Sequence[str]) -> Calibration | None:
    """Return the calibration of a model file if it applies to predictions with this test-time augmentation.

    Without one, or with one for another augmentation (a warning says so), return None.

    Raises:
        FgvcError: it is damaged.
    """
    found = Calibration.read(file)
    if found is None:
        return None
    thresholds = 1 if found.sets is None else len(found.sets.thresholds)
    if thresholds not in (1, classes) or (found.means is not None and len(found.means.means) != classes):
        raise FgvcError(f"{file}: its calibration is for another number of classes. Calibrate again (fgvc calibrate)")
    if tuple(found.tta) != tuple(tta):
        with_what = f"with `tta={','.join(found.tta)}`" if found.tta else "without test-time augmentation"
        again = f"with `tta={','.join(tta)}`" if tta else "without `tta`"
        logger.warning(
            f"the calibration of {file.parent} was computed {with_what} and is ignored here: predict {with_what}, or "
            f"calibrate {again}"
        )
        return None
    return found
