"""Example images of a report: the most confident errors, and the occlusion test."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fgvc_cli.contracts import Split
from fgvc_cli.data.images import ImageError
from fgvc_cli.data.splits import balanced_indices
from fgvc_cli.evaluation.split_selection import SplitRequest
from fgvc_cli.explaining.explainers import NamedExplainer
from fgvc_cli.explaining.explanation import (
    PREDICTED,
    TRUE,
    ExplainedImage,
    Explanation,
    ImageExplanations,
    InputImage,
    decision_sentence,
)
from fgvc_cli.explaining.masking import Masking
from fgvc_cli.explaining.overlays import masked_tile, open_photograph, saliency_tile
from fgvc_cli.formatting import percent
from fgvc_cli.progress import progress
from fgvc_cli.report.pictures import LONGEST_SIDE, Picture, picture, strongest
from fgvc_cli.report.predictions import Prediction, mistakes
from fgvc_cli.report.templating import unbroken
from fgvc_cli.scoring.model import Computing, ReadyClassifier

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage


DEFAULT_EXPLAINER = "gradcam"
IMAGES = 6
"""Mistakes, and as many occlusion panels, in the section of a run: with these it stays below 450 kB."""


@dataclass(frozen=True)
class ReportRequest:
    """What is reported of each run.

    Attributes:
        subject: the images that it is scored on.
        explainer: what draws the heat maps; None: `DEFAULT_EXPLAINER`, where it can explain the run.
        settings: options of the explainer.
        images: how many of the most confident mistakes, and how many occlusion panels.
        computing: where and how.
    """

    subject: SplitRequest = field(default_factory=SplitRequest)
    explainer: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    images: int = IMAGES
    computing: Computing = field(default_factory=Computing)


@dataclass(frozen=True)
class Tile:
    """A picture, what stands above it, and a class with its probability below."""

    title: str
    picture: Picture
    class_name: str = ""
    probability: float | None = None


@dataclass(frozen=True)
class Example:
    """An image with what was found out about it.

    Attributes:
        key: its name in the split.
        true, predicted: class names.
        probability: of the predicted class.
        true_probability: of the true class.
        tiles: its pictures.
        sentence: what became of the decision, for an occlusion panel.
        survived: whether the predicted class stayed; None without covering.
    """

    key: str
    true: str
    predicted: str
    probability: float
    true_probability: float
    tiles: Sequence[Tile]
    sentence: str = ""
    survived: bool | None = None

    @property
    def is_right(self) -> bool:
        """Whether the predicted class is the true one."""
        return self.predicted == self.true


@dataclass(frozen=True)
class Examples:
    """What a report shows of images.

    Attributes:
        explainer: what drew the heat maps.
        cover: how the occlusion test covered them.
        notes: lines a person should know of how the explainer explains this classifier.
        mistakes: the most confident ones.
        panels: of the occlusion test.
        left_out: why an image is not shown, by its key.
    """

    explainer: str
    cover: Masking
    notes: Sequence[str]
    mistakes: Sequence[Example]
    panels: Sequence[Example]
    left_out: dict[str, str] = field(default_factory=dict)


def show_examples(
    ready: ReadyClassifier,
    explainer: NamedExplainer,
    split: Split,
    predictions: Sequence[Prediction],
    images: int,
) -> Examples:
    """Explain the images that are shown.

    Args:
        ready: the classifier.
        explainer: draws the heat maps; it can explain the classifier.
        split: has the images.
        predictions: for the images of the split.
        images: how many mistakes, and how many occlusion panels.

    Raises:
        FgvcError: the explainer breaks its contract, or memory runs out.
    """
    there = set(split.keys)
    predicted = [p for p in predictions if p.predicted and p.key in there]
    confident = mistakes(predicted)[:images]
    typical = choose_typical(predicted, images)
    left_out = {p.key: "the dataset has no such image any more" for p in predictions if p.key not in there}
    showing = _Showing(ready, explainer, split, Masking(), left_out)
    with progress("heat maps", 2 * len(confident) + len(typical)) as bar:
        of_predicted = showing.explained(confident, PREDICTED, None, bar.advance)
        of_true = showing.explained(confident, TRUE, None, bar.advance)
        covered = showing.explained(typical, PREDICTED, showing.cover, bar.advance)
    shown_mistakes = [showing.mistake(of_predicted[key], of_true[key]) for key in of_predicted if key in of_true]
    panels = [showing.panel(image) for image in covered.values()]
    return Examples(
        explainer.name,
        showing.cover,
        explainer.notes(ready.classifier),
        [example for example in shown_mistakes if example is not None],
        [example for example in panels if example is not None],
        left_out,
    )


def choose_typical(predictions: Sequence[Prediction], images: int) -> list[Prediction]:
    """Return images that are spread over the classes, half of them right and half wrong, as far as there are.

    They are not chosen by what they show: the occlusion test of a report should be that of any image.
    """
    right = [p for p in predictions if p.is_right]
    wrong = [p for p in predictions if not p.is_right]
    of_wrong = min(len(wrong), max(images // 2, images - len(right)))
    return [*_spread(right, images - of_wrong), *_spread(wrong, of_wrong)]


def _spread(predictions: Sequence[Prediction], wanted: int) -> list[Prediction]:
    ordered = sorted(predictions, key=lambda p: p.key)
    classes = {name: number for number, name in enumerate(sorted({p.true for p in ordered}))}
    return [ordered[i] for i in balanced_indices([classes[p.true] for p in ordered], wanted)] if wanted else []


@dataclass(frozen=True)
class _Showing:
    """Explains and draws; what fails is noted."""

    ready: ReadyClassifier
    explainer: NamedExplainer
    split: Split
    cover: Masking
    left_out: dict[str, str]

    def explained(
        self, chosen: Sequence[Prediction], target: str, cover: Masking | None, advance: Callable[[int], object]
    ) -> dict[str, ExplainedImage]:
        """Return what was found out about the images, by key."""
        place = {key: i for i, key in enumerate(self.split.keys)}
        subjects = [InputImage(p.key, self.split.images[place[p.key]], p.true) for p in chosen]
        steps = 0 if cover is None else 1
        explaining = ImageExplanations([self.ready], [self.explainer], subjects, target, cover, steps)
        found = {}
        for batch in explaining:
            found.update({image.input.name: image for image in batch})
            advance(len(batch))
        self.left_out.update(explaining.failures)
        return found

    def mistake(self, of_predicted: ExplainedImage, of_true: ExplainedImage) -> Example | None:
        """Return a mistake with the heat maps of both classes."""
        photograph = self._photograph(of_predicted)
        if photograph is None:
            return None
        predicted, true = of_predicted.explanations[0], of_true.explanations[0]
        tiles = [
            _plain(photograph, of_predicted),
            _heat(photograph, predicted, 0, "predicted class"),
            _heat(photograph, true, 0, "true class"),
        ]
        return _example(of_predicted, tiles)

    def panel(self, image: ExplainedImage) -> Example | None:
        """Return an occlusion panel."""
        photograph = self._photograph(image)
        if photograph is None:
            return None
        explanation = image.explanations[0]
        after = explanation.steps[1]
        covered = picture(
            masked_tile(photograph, explanation, after),
            f"The same photograph with the most marked {percent(after.masked)} covered by its mean color.",
        )
        tiles = [
            _plain(photograph, image),
            _heat(photograph, explanation, 0, "heat map"),
            Tile(f"{percent(after.masked)} covered", covered, after.predicted, after.probability),
            _heat(photograph, explanation, 1, "heat map again"),
        ]
        return _example(image, tiles, unbroken(decision_sentence(explanation, image.input.true_class)))

    def _photograph(self, image: ExplainedImage) -> PILImage | None:
        try:
            return open_photograph(image.input.source, LONGEST_SIDE).image
        except ImageError as error:
            self.left_out[image.input.name] = error.cause
            return None


def _plain(photograph: PILImage, image: ExplainedImage) -> Tile:
    return Tile("photograph", picture(photograph, f"Photograph {image.input.name}, of {image.input.true_class}."))


def _heat(photograph: PILImage, explanation: Explanation, look: int, title: str) -> Tile:
    sight = explanation.steps[look]
    alt = f"Heat map of the class {sight.target}, {strongest(sight.saliency)}."
    tile = picture(saliency_tile(photograph, explanation, sight), alt)
    return Tile(title, tile, sight.target, sight.target_probability)


def _example(image: ExplainedImage, tiles: Sequence[Tile], sentence: str = "") -> Example:
    explanation = image.explanations[0]
    first = explanation.steps[0]
    return Example(
        image.input.name,
        image.input.true_class or "",
        first.predicted,
        first.probability,
        first.true_probability or 0.0,
        tiles,
        sentence,
        explanation.survived,
    )
