"""Example images of a report: the most confident mistakes, and the occlusion test."""

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
from fgvc_cli.report.page import unbroken
from fgvc_cli.report.pictures import LONGEST_SIDE, Picture, peak_text, picture
from fgvc_cli.report.predictions import mistakes
from fgvc_cli.scoring.model import InferenceSettings, ReadyClassifier
from fgvc_cli.scoring.results import Prediction

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

DEFAULT_EXPLAINER = "gradcam"
IMAGES = 6
"""Default number of mistakes, and of occlusion panels; with these a run takes less than 450 kB of the page."""


@dataclass(frozen=True)
class ReportRequest:
    """What to report of each run.

    Attributes:
        split: the images to evaluate on.
        explainer: None: `DEFAULT_EXPLAINER`, if it supports the classifier.
        settings: options of the explainer.
        images: number of mistakes, and of occlusion panels.
        inference: device, precision and loading.
    """

    split: SplitRequest = field(default_factory=SplitRequest)
    explainer: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    images: int = IMAGES
    inference: InferenceSettings = field(default_factory=InferenceSettings)


@dataclass(frozen=True)
class Tile:
    """A picture with a title, and a class with its probability below."""

    title: str
    picture: Picture
    class_name: str = ""
    probability: float | None = None


@dataclass(frozen=True)
class Example:
    """An explained image.

    Attributes:
        key: its name in the split.
        true, predicted: class names.
        tiles: its pictures.
        sentence: outcome of the occlusion test.
        survived: whether the predicted class stayed the same under occlusion; None without occlusion.
    """

    key: str
    true: str
    predicted: str
    tiles: Sequence[Tile]
    sentence: str = ""
    survived: bool | None = None

    @property
    def is_right(self) -> bool:
        """Whether the predicted class is the true one."""
        return self.predicted == self.true


@dataclass(frozen=True)
class Examples:
    """The example images of a report.

    Attributes:
        explainer: name of the explainer.
        masking: of the occlusion test.
        notes: of the explainer on this classifier.
        mistakes: the most confident ones.
        panels: of the occlusion test.
        skipped: reasons why images are not shown, by key.
    """

    explainer: str
    masking: Masking
    notes: Sequence[str]
    mistakes: Sequence[Example]
    panels: Sequence[Example]
    skipped: dict[str, str] = field(default_factory=dict)


def make_examples(
    ready: ReadyClassifier, explainer: NamedExplainer, split: Split, predictions: Sequence[Prediction], images: int
) -> Examples:
    """Explain the most confident mistakes, and `images` others under occlusion.

    Raises:
        FgvcError: the explainer breaks its contract, or memory runs out.
    """
    keys = set(split.keys)
    scored = [p for p in predictions if p.predicted and p.key in keys]
    confident, typical = mistakes(scored)[:images], choose_typical(scored, images)
    skipped = {p.key: "the dataset no longer has this image" for p in predictions if p.key not in keys}
    maker = _ExampleMaker(ready, explainer, split, Masking(), skipped)
    with progress("saliency maps", 2 * len(confident) + len(typical)) as bar:
        of_predicted = maker.explain(confident, PREDICTED, None, bar.advance)
        of_true = maker.explain(confident, TRUE, None, bar.advance)
        occluded = maker.explain(typical, PREDICTED, maker.masking, bar.advance)
    shown = [maker.mistake(of_predicted[key], of_true[key]) for key in of_predicted if key in of_true]
    panels = [maker.panel(image) for image in occluded.values()]
    return Examples(
        explainer.name,
        maker.masking,
        explainer.notes(ready.classifier),
        [example for example in shown if example is not None],
        [example for example in panels if example is not None],
        skipped,
    )


def choose_typical(predictions: Sequence[Prediction], images: int) -> list[Prediction]:
    """Return images spread over the classes, half of them right and half wrong where there are enough.

    The choice is deterministic and independent of what the saliency maps show.
    """
    right = [p for p in predictions if p.is_right]
    wrong = [p for p in predictions if not p.is_right]
    of_wrong = min(len(wrong), max(images // 2, images - len(right)))
    return [*_spread(right, images - of_wrong), *_spread(wrong, of_wrong)]


def _spread(predictions: Sequence[Prediction], limit: int) -> list[Prediction]:
    ordered = sorted(predictions, key=lambda p: p.key)
    classes = {name: number for number, name in enumerate(sorted({p.true for p in ordered}))}
    return [ordered[i] for i in balanced_indices([classes[p.true] for p in ordered], limit)] if limit else []


@dataclass(frozen=True)
class _ExampleMaker:
    """Explains images and draws their tiles; records images that fail in `skipped`."""

    ready: ReadyClassifier
    explainer: NamedExplainer
    split: Split
    masking: Masking
    skipped: dict[str, str]

    def explain(
        self, chosen: Sequence[Prediction], target: str, masking: Masking | None, advance: Callable[[int], object]
    ) -> dict[str, ExplainedImage]:
        """Return the explained images, by key."""
        images = dict(zip(self.split.keys, self.split.images, strict=True))
        inputs = [InputImage(p.key, images[p.key], p.true) for p in chosen]
        steps = 0 if masking is None else 1
        explaining = ImageExplanations([self.ready], [self.explainer], inputs, target, masking, steps)
        found = {}
        for batch in explaining:
            found.update({image.input.name: image for image in batch})
            advance(len(batch))
        self.skipped.update(explaining.failures)
        return found

    def mistake(self, of_predicted: ExplainedImage, of_true: ExplainedImage) -> Example | None:
        """Return a mistake with the saliency maps of both classes."""
        image = self._open(of_predicted)
        if image is None:
            return None
        tiles = [
            _image_tile(image, of_predicted),
            _map_tile(image, of_predicted.explanations[0], 0, "predicted class"),
            _map_tile(image, of_true.explanations[0], 0, "true class"),
        ]
        return _example(of_predicted, tiles)

    def panel(self, explained: ExplainedImage) -> Example | None:
        """Return the panel of an occlusion test."""
        image = self._open(explained)
        if image is None:
            return None
        explanation = explained.explanations[0]
        after = explanation.steps[1]
        masked = f"{percent(after.masked)} masked"
        alt = f"The same image with the most salient {percent(after.masked)} masked by its mean color."
        mask = picture(masked_tile(image, explanation, after), alt)
        tiles = [
            _image_tile(image, explained),
            _map_tile(image, explanation, 0, "saliency map"),
            Tile(masked, mask, after.predicted, after.probability),
            _map_tile(image, explanation, 1, "saliency map, masked"),
        ]
        return _example(explained, tiles, unbroken(decision_sentence(explanation, explained.input.true_class)))

    def _open(self, explained: ExplainedImage) -> PILImage | None:
        try:
            return open_photograph(explained.input.source, LONGEST_SIDE).image
        except ImageError as error:
            self.skipped[explained.input.name] = error.cause
            return None


def _image_tile(image: PILImage, explained: ExplainedImage) -> Tile:
    return Tile("image", picture(image, f"Image {explained.input.name} of class {explained.input.true_class}."))


def _map_tile(image: PILImage, explanation: Explanation, step: int, title: str) -> Tile:
    shown = explanation.steps[step]
    alt = f"Saliency map of the class {shown.target}, {peak_text(shown.saliency)}."
    return Tile(title, picture(saliency_tile(image, explanation, shown), alt), shown.target, shown.target_probability)


def _example(explained: ExplainedImage, tiles: Sequence[Tile], sentence: str = "") -> Example:
    explanation, image = explained.explanations[0], explained.input
    predicted = explanation.steps[0].predicted
    return Example(image.name, image.true_class or "", predicted, tiles, sentence, explanation.survived)
