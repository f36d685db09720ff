"""The classifier of a server: predictions, explanations and what there is to know about it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from fgvc_cli._version import __version__
from fgvc_cli.data.images import ImageError, image_size
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.evaluation.export import weights_license
from fgvc_cli.evaluation.predict import Predictions
from fgvc_cli.explaining.explainers import KIND, make_explainer, make_explainers
from fgvc_cli.explaining.explanation import PREDICTED, TRUE, ImageExplanations, InputImage
from fgvc_cli.explaining.overlays import open_photograph, saliency_tile
from fgvc_cli.explaining.panels import draw_panel
from fgvc_cli.registry import get_registry
from fgvc_cli.runs.exported import is_exported
from fgvc_cli.runs.model_file import read_metadata
from fgvc_cli.scoring.model import InferenceSettings, load
from fgvc_cli.scoring.taxonomy import SureNames, TaxonomySettings, find_tree
from fgvc_cli.scoring.tta import Views
from fgvc_cli.serving.limits import Limits, RefusedError

Picture = Literal["panel", "map"]
DEFAULT_EXPLAINER = "gradcam"
EXPORTED = "an exported model computes scores and nothing else; serve the run that it was exported from"


class Upload(NamedTuple):
    """A file of a request."""

    name: str
    """as the client calls it"""
    content: bytes


class ServedModel:
    """A classifier in memory; one call at a time.

    Args:
        model_file: of a run, or an exported one.
        inference: device, precision, batch size, test-time augmentation and whether to use the calibration.
        taxonomy: file of groups of classes; None: those of the model file.
        limits: of requests.

    Raises:
        UsageError: this machine has no such device, or it does not support the precision.
        FgvcError: the model or the taxonomy cannot be read.
    """

    def __init__(
        self,
        model_file: Path,
        inference: InferenceSettings,
        taxonomy: Path | None = None,
        limits: Limits = Limits(),  # noqa: B008  (frozen)
    ) -> None:
        self.ready = load(model_file, replace(inference, workers=0), exported=True)
        self.limits = limits
        self._tree = find_tree(model_file, self.ready.classifier.class_names, TaxonomySettings(taxonomy))
        self.card = self._card()

    @property
    def name(self) -> str:
        """The name of the run or of the file, without its folder, which is nobody's business."""
        return self.ready.run.absolute().name

    def predict(
        self, uploads: Sequence[Upload], top_k: int = 5, sure: float | None = None, sets: bool = False
    ) -> dict[str, Any]:
        """Predict the classes of images: the document of `fgvc predict --json`, with an `index` for each image.

        Raises:
            RefusedError: an image has too many pixels, or none can be read.
            UsageError: `sure` needs groups of classes, or `sets` a calibration, that the model does not have.
        """
        names = self._names(sure)
        if sets and (self.ready.calibration is None or self.ready.calibration.sets is None):
            raise UsageError("`sets=true` needs a calibration with prediction sets, which this model does not have")
        for upload in uploads:
            self._check_pixels(upload)
        images = [upload.content for upload in uploads]
        predicting = Predictions(self.ready, images, top_k, names=names, sets=sets)
        found = [prediction for batch in predicting for prediction in batch]
        places = {f"image {index}": index for index in range(len(uploads))}
        failures = [
            {"image": uploads[places[name]].name, "index": places[name], "reason": reason}
            for name, reason in predicting.failures.items()
        ]
        if not found:
            more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
            raise RefusedError(422, f"{failures[0]['image']}: {failures[0]['reason']}{more}")
        predictions = [
            {**prediction.as_json(), "image": uploads[places[prediction.image]].name, "index": places[prediction.image]}
            for prediction in found
        ]
        return {"run": self.name, "predictions": predictions, "failures": failures}

    def explain(
        self,
        upload: Upload,
        explainer: str = DEFAULT_EXPLAINER,
        target: str = PREDICTED,
        versus: str | None = None,
        picture: Picture = "panel",
    ) -> bytes:
        """Draw the saliency map of an image as PNG: the panel of `fgvc explain`, or the map alone over the photograph.

        Raises:
            RefusedError: the image has too many pixels, cannot be read, or has no usable scores.
            UsageError: the explainer or a class does not exist, the explainer cannot explain this model, or the model
                is an exported one.
        """
        if is_exported(self.ready.classifier):
            raise UsageError(EXPORTED)
        if target == TRUE:
            raise UsageError(f"`target={TRUE}`: the true class of an upload is unknown; name a class")
        explainers = make_explainers([explainer], {}, get_registry())
        ready = replace(self.ready, precision="fp32", views=Views(), calibration=None)
        image = InputImage(upload.name, upload.content)
        explaining = ImageExplanations([ready], explainers, [image], target, versus=versus)
        self._check_pixels(upload)
        try:
            with ready.memory_explained():
                explained = next((each for batch in explaining for each in batch), None)
            if explained is None:
                raise RefusedError(422, f"{upload.name}: {explaining.failures[upload.name]}")
            if picture == "panel":
                drawn = draw_panel(explained)
            else:
                (explanation,) = explained.explanations
                photograph = open_photograph(upload.content)
                drawn = saliency_tile(photograph.image, explanation, explanation.steps[0])
        except ImageError as error:
            raise RefusedError(422, f"{upload.name}: {error.cause}") from error
        buffer = io.BytesIO()
        drawn.save(buffer, format="png", compress_level=4)
        return buffer.getvalue()

    def _names(self, sure: float | None) -> SureNames | None:
        if sure is None:
            return None
        threshold = TaxonomySettings(sure=sure).threshold
        if self._tree is None:
            raise UsageError(f"`sure={sure:g}` needs groups of classes, which this model does not have")
        return SureNames(self._tree, threshold)

    def _check_pixels(self, upload: Upload) -> None:
        """Refuse an image with too many pixels; one that cannot be read is refused where it is decoded."""
        try:
            width, height = image_size(upload.content)
        except ImageError:
            return
        if width * height > (allowed := self.limits.max_pixels):
            raise RefusedError(
                413,
                f"{upload.name}: {width}x{height} px is more than {allowed / 1e6:g} million pixels; make it smaller",
            )

    def _card(self) -> dict[str, Any]:
        """Return what there is to know about the model, as JSON."""
        classifier, calibration = self.ready.classifier, self.ready.calibration
        document = read_metadata(self.ready.model_file)
        components = {
            kind: {"name": record.get("name"), "options": record.get("options", {})}
            for kind, record in document.get("components", {}).items()
            if kind in ("backbone", "head")
        }
        return {
            "run": self.name,
            "fgvc": __version__,
            "exported": is_exported(classifier),
            "classes": list(classifier.class_names),
            **components,
            "image_size": classifier.preprocessing.image_size,
            "preprocessing": asdict(classifier.preprocessing),
            "license": document.get("license") or weights_license(classifier, document),
            "device": classifier.device.type,
            "precision": self.ready.precision,
            "calibration": [] if calibration is None else calibration.lines,
            "sets": calibration is not None and calibration.sets is not None,
            "levels": [] if self._tree is None else list(self._tree.levels),
            "explainers": self._explainers(),
            "limits": asdict(self.limits),
        }

    def _explainers(self) -> list[str]:
        """Return the names of the explainers that can explain this model, the default one first."""
        if is_exported(self.ready.classifier):
            return []
        registry, found = get_registry(), []
        for name in dict.fromkeys(component.name for component in registry.components(KIND)):
            try:
                make_explainer(name, {}, registry).check(self.ready.classifier)
            except FgvcError:
                continue
            found.append(name)
        return sorted(found, key=lambda name: name != DEFAULT_EXPLAINER)
