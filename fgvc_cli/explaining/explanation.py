"""Explain images: saliency maps and predictions of one or several runs, batched over images."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fgvc_cli.contracts import EncodedImage, Preprocessing, Split
from fgvc_cli.data.loading import ImageBatch
from fgvc_cli.errors import UsageError, did_you_mean
from fgvc_cli.explaining.contrast import check_class_specific, difference
from fgvc_cli.explaining.explainers import NamedExplainer
from fgvc_cli.explaining.masking import Masking, StepBatch, fill_image, occlusion_steps
from fgvc_cli.formatting import percent
from fgvc_cli.runs.folder import MODEL_FILE
from fgvc_cli.scoring.model import ReadyClassifier

logger = logging.getLogger(__name__)

PREDICTED, TRUE = "predicted", "true"
"""Values of `target` besides the name of a class."""
SAMPLES = "samples"
"""The folder of a run that holds the sample images."""


@dataclass(frozen=True)
class InputImage:
    """An image to explain: a unique name, a file, its bytes or a uint8 array H,W,3, and its true class, if known."""

    name: str
    source: Path | EncodedImage | bytes | np.ndarray
    true_class: str | None = None


@dataclass(frozen=True)
class OcclusionStep:
    """The prediction and saliency map of an image at one occlusion step; at step 0 nothing is masked.

    Attributes:
        masked: fraction of the classifier's crop that is masked.
        predicted: the predicted class.
        probability: of the predicted class.
        target: the class that the saliency map explains.
        target_probability: of that class.
        true_probability: of the true class, if known.
        saliency: float32 S,S in [0, 1].
        mask: bool S,S, the masked pixels.
    """

    masked: float
    predicted: str
    probability: float
    target: str
    target_probability: float
    true_probability: float | None
    saliency: np.ndarray
    mask: np.ndarray

    def as_json(self, step: int) -> dict[str, Any]:
        """Return the JSON form, without the map and the mask."""
        return {
            "step": step,
            "covered": round(self.masked, 6),
            "predicted": self.predicted,
            "probability": round(self.probability, 6),
            "true_probability": None if self.true_probability is None else round(self.true_probability, 6),
            "explained": self.target,
            "explained_probability": round(self.target_probability, 6),
        }


@dataclass(frozen=True)
class Explanation:
    """The explanation of one run's prediction by one explainer.

    Attributes:
        run: the run folder or model file.
        explainer: its name.
        preprocessing: how the run's classifier crops the image.
        fill: uint8 S,S,3, the crop fully masked.
        steps: the unmasked image, then the occlusion steps; of the difference of two classes, if compared.
        contrast: if two classes are compared: the unmasked image with the map of the class and of the other class.
    """

    run: str
    explainer: str
    preprocessing: Preprocessing
    fill: np.ndarray
    steps: Sequence[OcclusionStep]
    contrast: tuple[OcclusionStep, OcclusionStep] | None = None

    @property
    def saliency(self) -> np.ndarray:
        """The saliency map of the unmasked image, float32 S,S in [0, 1]."""
        return self.steps[0].saliency

    @property
    def survived(self) -> bool | None:
        """Whether the predicted class is the same at every step; None without occlusion steps."""
        first, *later = (step.predicted for step in self.steps)
        return all(predicted == first for predicted in later) if later else None


@dataclass(frozen=True)
class ExplainedImage:
    """An image with its explanations.

    Attributes:
        input: the image.
        explanations: one for each run and explainer, those of a run together.
        masking: how the occlusion steps mask the image; None without occlusion steps.
    """

    input: InputImage
    explanations: Sequence[Explanation]
    masking: Masking | None = None

    def labels(self) -> list[str]:
        """Name each explanation by what distinguishes it from the others: run, explainer, or both."""
        names = [Path(run).absolute().name for run in self.runs]
        short = dict(zip(self.runs, names if len(set(names)) == len(names) else self.runs, strict=True))
        if len(self.runs) == 1:
            return [e.explainer for e in self.explanations]
        if len(self.explainers) == 1:
            return [short[e.run] for e in self.explanations]
        return [f"{e.explainer}, {short[e.run]}" for e in self.explanations]

    @property
    def runs(self) -> list[str]:
        """The runs, without duplicates."""
        return list(dict.fromkeys(e.run for e in self.explanations))

    @property
    def explainers(self) -> list[str]:
        """The explainers, without duplicates."""
        return list(dict.fromkeys(e.explainer for e in self.explanations))

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form, without saliency maps."""
        return {
            "image": self.input.name,
            "true": self.input.true_class,
            "explanations": [
                {
                    "run": explanation.run,
                    "explainer": explanation.explainer,
                    "looks": [step.as_json(number) for number, step in enumerate(explanation.steps)],
                    "survived": explanation.survived,
                    **_contrast_json(explanation.contrast),
                }
                for explanation in self.explanations
            ],
        }


def _contrast_json(contrast: tuple[OcclusionStep, OcclusionStep] | None) -> dict[str, Any]:
    if contrast is None:
        return {}
    return {"versus": contrast[1].target, "versus_probability": round(contrast[1].target_probability, 6)}


def decision_sentence(explanation: Explanation, true_class: str | None) -> str:
    """Summarize the occlusion test: whether the prediction survived, and whether it was right."""
    first, last = explanation.steps[0], explanation.steps[-1]
    if last.masked == 0:
        return "Nothing was masked, because the saliency map is flat: the occlusion test is void."
    if explanation.survived:
        wrong = true_class is not None and first.predicted != true_class
        return (
            f"The prediction survived: with the most salient {percent(last.masked)} masked it is still "
            f"{first.predicted} ({percent(last.probability)}, before {percent(first.probability)})."
        ) + (" It is wrong in both cases." if wrong else "")
    number, changed = next((i, s) for i, s in enumerate(explanation.steps) if s.predicted != first.predicted)
    at_step = f" at step {number}" if len(explanation.steps) > 2 else ""
    verdicts = {
        (True, False): " It was right and is now wrong.",
        (False, True): " It was wrong and is now right.",
        (False, False): " It is wrong in both cases.",
    }
    verdict = "" if true_class is None else verdicts[first.predicted == true_class, changed.predicted == true_class]
    return (
        f"The prediction changed{at_step}: with the most salient {percent(changed.masked)} masked it is "
        f"{changed.predicted} ({percent(changed.probability)}) instead of {first.predicted}.{verdict}"
    )


def true_class(path: Path, class_names: Collection[str]) -> str | None:
    """Infer the true class of an image file from its folders, or None.

    It is the innermost folder named after a class, among those given in the path and the one that contains the file.
    Sample images in a run folder are named after their class.
    """
    folder = path.absolute().parent
    for name in (folder.name, *reversed(path.parent.parts)):
        if name in class_names:
            return name
    stem, _, number = path.stem.rpartition("-")
    is_sample = folder.name == SAMPLES and (folder.parent / MODEL_FILE).is_file()
    return stem if is_sample and number.isdigit() and stem in class_names else None


def class_index(name: str, class_names: Sequence[str], setting: str) -> int:
    """Return the index of a class; `setting` is the name of the setting in the message.

    Raises:
        UsageError: there is no such class.
    """
    if name not in class_names:
        raise UsageError(f"`{setting}={name}`: the run has no such class.{did_you_mean(name, class_names)}")
    return list(class_names).index(name)


@dataclass
class ImageExplanations:
    """Explains images when iterated over, batch by batch, with a few batches in memory at a time.

    Attributes:
        runs: the classifiers, with the same batch size.
        explainers: each explains every run.
        images: the images, with different names.
        target: the class to explain: "predicted" (at each step), "true" or the name of a class.
        masking: how to mask the most salient pixels; None: no occlusion test.
        steps: number of occlusion steps; 0 without `masking`.
        versus: name of a class to compare with: maps explain the difference of the scores; None: no comparison.
        failures: why an image was skipped, by name; complete after the iteration.

    Raises:
        UsageError: an explainer cannot explain a run or compare classes, or a run does not have a class.
    """

    runs: Sequence[ReadyClassifier]
    explainers: Sequence[NamedExplainer]
    images: Sequence[InputImage]
    target: str = PREDICTED
    masking: Masking | None = None
    steps: int = 0
    versus: str | None = None
    failures: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for ready in self.runs:
            for explainer in self.explainers:
                explainer.check(ready.classifier)
        if self.target == TRUE:
            unlabeled = "its true class is unknown; put it into a folder named after one of the run's classes"
            self.failures |= {image.name: unlabeled for image in self.images if image.true_class is None}
            self.images = [image for image in self.images if image.true_class is not None]
        elif self.target != PREDICTED:
            for ready in self.runs:
                class_index(self.target, ready.classifier.class_names, "target")
        if self.versus is not None:
            check_class_specific(self.explainers, self.versus)
            for ready in self.runs:
                class_index(self.versus, ready.classifier.class_names, "versus")
            if self.target == self.versus:
                raise UsageError(f"`versus={self.versus}` is the class to explain itself; name another one")

    def __iter__(self) -> Iterator[list[ExplainedImage]]:
        """Yield the explained images batch by batch, in order; images that cannot be read are skipped."""
        for indices, pixels in self._batches():
            images = [self.images[i] for i in indices]
            explanations = [
                self._explain(ready, explainer, crops, images)
                for ready, crops in zip(self.runs, pixels, strict=True)
                for explainer in self.explainers
            ]
            explained = [ExplainedImage(im, [e[i] for e in explanations], self.masking) for i, im in enumerate(images)]
            yield [image for image in explained if self._is_usable(image)]

    def _batches(self) -> Iterator[tuple[list[int], list[Tensor]]]:
        """Yield the positions of images that every run could read, and their pixels for each run."""
        names = [image.name for image in self.images]
        sources: list[Any] = [image.source for image in self.images]
        split = Split("images", sources, [0] * len(names), names)
        loaders = [ready.loader(split) for ready in self.runs]
        streams = [iter(loader) for loader in loaders]
        waiting: list[ImageBatch | None] = [None] * len(loaders)
        while True:
            for k, (loader, stream) in enumerate(zip(loaders, streams, strict=True)):
                loader.failures.update(loaders[0].failures)  # so that it does not warn about the same images again
                waiting[k] = waiting[k] or next(stream, None)
            self.failures |= {key: reason for loader in loaders for key, reason in loader.failures.items()}
            batches = [batch for batch in waiting if batch is not None]
            if len(batches) < len(loaders):
                return
            # A loader skips a batch of which it can read nothing, so the loaders may be at different batches.
            places = [
                int(batch.indices[0]) // loader.batch_size for batch, loader in zip(batches, loaders, strict=True)
            ]
            waiting = [batch if place > min(places) else None for batch, place in zip(batches, places, strict=True)]
            held = [batch.indices.tolist() for batch in batches]
            common = sorted(set(held[0]).intersection(*held[1:]))
            if common:
                yield common, [b.pixels[[h.index(i) for i in common]] for b, h in zip(batches, held, strict=True)]

    def _explain(
        self, ready: ReadyClassifier, explainer: NamedExplainer, pixels: Tensor, images: Sequence[InputImage]
    ) -> list[Explanation]:
        """Explain the predictions of one run for a batch."""
        names, targets = ready.classifier.class_names, None
        if self.target != PREDICTED:
            wanted = [image.true_class or "" if self.target == TRUE else self.target for image in images]
            targets = torch.tensor([class_index(name, names, "target") for name in wanted])
        masking = self.masking or Masking()
        contrasts: Sequence[tuple[OcclusionStep, OcclusionStep] | None] = [None] * len(images)
        if self.versus is not None:
            versus = class_index(self.versus, names, "versus")
            (own,) = occlusion_steps(explainer, ready, pixels, targets, masking, 0)
            (other,) = occlusion_steps(explainer, ready, pixels, torch.full_like(own.targets, versus), masking, 0)
            contrasts = list(zip(_per_image(own, names, images), _per_image(other, names, images), strict=True))
            explainer, targets = difference(explainer, versus), own.targets
        batches = occlusion_steps(explainer, ready, pixels, targets, masking, self.steps if self.masking else 0)
        steps = [_per_image(batch, names, images) for batch in batches]
        fills = fill_image(pixels, masking.fill).permute(0, 2, 3, 1).cpu().numpy()
        preprocessing = ready.classifier.preprocessing
        return [
            Explanation(str(ready.run), explainer.name, preprocessing, fill, list(of_image), contrast)
            for fill, of_image, contrast in zip(fills, zip(*steps, strict=True), contrasts, strict=True)
        ]

    def _is_usable(self, image: ExplainedImage) -> bool:
        steps = [step for e in image.explanations for step in e.steps]
        if not all(np.isfinite(step.probability) for step in steps):
            self.failures[image.input.name] = "the classifier's scores are not finite"
        elif any(step.target == self.versus for step in steps):
            self.failures[image.input.name] = (
                f"{self.versus} is the {self.target} class itself; compare with another one"
            )
        else:
            return True
        logger.warning(f"skipping {image.input.name}: {self.failures[image.input.name]}")
        return False


def _per_image(batch: StepBatch, class_names: Sequence[str], images: Sequence[InputImage]) -> list[OcclusionStep]:
    """Split an occlusion step of a batch into those of its images."""
    found = []
    for i, image in enumerate(images):
        probabilities = batch.probabilities[i].numpy()
        predicted, target = int(probabilities.argmax()), int(batch.targets[i])
        true = class_names.index(image.true_class) if image.true_class in class_names else None
        found.append(
            OcclusionStep(
                masked=float(batch.masks[i].float().mean()),
                predicted=class_names[predicted],
                probability=float(probabilities[predicted]),
                target=class_names[target],
                target_probability=float(probabilities[target]),
                true_probability=None if true is None else float(probabilities[true]),
                saliency=batch.maps[i].numpy(),
                mask=batch.masks[i].numpy(),
            )
        )
    return found
