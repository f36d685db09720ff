"""Explained images: for each run and explainer, the prediction at every occlusion step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fgvc_cli.contracts import Preprocessing
from fgvc_cli.formatting import percent


@dataclass(frozen=True)
class Sight:
    """One look of a classifier at one image.

    Attributes:
        covered: share of the classifier's crop that is covered.
        predicted: the most probable class, and its `probability`.
        explained: the class that the map is of, and its probability.
        true_probability: of the true class, if that is known.
        map: float32 S,S in [0, 1], what the score of the explained class rests on.
        mask: bool S,S, what is covered.
    """

    covered: float
    predicted: str
    probability: float
    explained: str
    explained_probability: float
    true_probability: float | None
    map: np.ndarray
    mask: np.ndarray


@dataclass(frozen=True)
class Explanation:
    """What one explainer shows of one run's decision.

    Attributes:
        run: what a person calls the run.
        explainer: its name.
        preprocessing: how the run's classifier crops a photograph.
        fill: uint8 S,S,3, the crop if it were covered whole.
        sights: the image as it is, then with more and more of it covered.
    """

    run: str
    explainer: str
    preprocessing: Preprocessing
    fill: np.ndarray
    sights: Sequence[Sight]

    @property
    def survived(self) -> bool | None:
        """Whether the class predicted at first was predicted at every step; None without covering."""
        first, *later = (sight.predicted for sight in self.sights)
        return all(predicted == first for predicted in later) if later else None


@dataclass(frozen=True)
class Subject:
    """An image to explain.

    Attributes:
        name: what a person calls it.
        source: a file, or a uint8 array H,W,3.
        true: its true class, if that is known.
    """

    name: str
    source: Path | np.ndarray
    true: str | None = None


@dataclass(frozen=True)
class ExplainedImage:
    """An image and all that was found out about it.

    Attributes:
        subject: the image.
        explanations: one for each run and explainer, the explainers of a run together.
    """

    subject: Subject
    explanations: Sequence[Explanation]

    def labels(self) -> list[str]:
        """Name each explanation by what sets it apart from the others: run, explainer, or both."""
        names = dict(zip(self.runs, _short(self.runs), strict=True))
        if len(self.runs) == 1:
            return [e.explainer for e in self.explanations]
        if len(self.explainers) == 1:
            return [names[e.run] for e in self.explanations]
        return [f"{e.explainer}, {names[e.run]}" for e in self.explanations]

    @property
    def runs(self) -> list[str]:
        """The runs, each once."""
        return list(dict.fromkeys(e.run for e in self.explanations))

    @property
    def explainers(self) -> list[str]:
        """The explainers, each once."""
        return list(dict.fromkeys(e.explainer for e in self.explanations))

    def as_json(self) -> dict[str, Any]:
        """Return it as plain values, without maps."""
        return {
            "image": self.subject.name,
            "true": self.subject.true,
            "explanations": [
                {
                    "run": explanation.run,
                    "explainer": explanation.explainer,
                    "looks": [_look(step, sight) for step, sight in enumerate(explanation.sights)],
                    "survived": explanation.survived,
                }
                for explanation in self.explanations
            ],
        }


def _short(runs: Sequence[str]) -> list[str]:
    """Call runs by their folders' names, or as they were given if that does not tell them apart."""
    names = [Path(run).absolute().name for run in runs]
    return names if len(set(names)) == len(names) else list(runs)


def _look(step: int, sight: Sight) -> dict[str, Any]:
    return {
        "step": step,
        "covered": round(sight.covered, 6),
        "predicted": sight.predicted,
        "probability": round(sight.probability, 6),
        "true_probability": None if sight.true_probability is None else round(sight.true_probability, 6),
        "explained": sight.explained,
        "explained_probability": round(sight.explained_probability, 6),
    }


def decision_sentence(explanation: Explanation, true: str | None) -> str:
    """Say whether the decision survived the covering."""
    first, last = explanation.sights[0], explanation.sights[-1]
    if last.covered == 0:
        return "Nothing was covered, for the heat map marks nothing: the test says nothing of this decision."
    marked = f"with the most marked {percent(last.covered)} covered"
    if explanation.survived:
        return (
            f"The decision survived: {marked} it is still {first.predicted}, "
            f"at {percent(last.probability)} where it was {percent(first.probability)}."
            + ("" if true in (None, first.predicted) else f" It {_truth(False, False)}.")
        )
    step, changed = next((i, s) for i, s in enumerate(explanation.sights) if s.predicted != first.predicted)
    at_step = f" step {step}" if len(explanation.sights) > 2 else ""
    truth = "" if true is None else f" It {_truth(first.predicted == true, changed.predicted == true)}."
    return (
        f"The decision did not survive{at_step}: with the most marked {percent(changed.covered)} covered it is "
        f"{changed.predicted} ({percent(changed.probability)}) instead of {first.predicted}.{truth}"
    )


def _truth(before: bool, now: bool) -> str:
    """Say what became of a decision that was right or wrong; one that is right and changes is not right any more."""
    if before:
        return "was right, and is wrong now"
    return "was wrong, and is right now" if now else "was wrong, and still is"
