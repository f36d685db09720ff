"""Exported models as classifiers: a file of an exporter in the place of backbone and head."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from fgvc_cli.contracts import (
    Backbone,
    BackboneInfo,
    CamLayer,
    Classifier,
    ExportedModel,
    Exporter,
    Features,
    Head,
    Objective,
    Preprocessing,
    Reads,
)
from fgvc_cli.enforcement import make
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.registry import Component, get_registry
from fgvc_cli.specs import ExporterSpec

C = TypeVar("C", bound=Classifier)


def exporter_of(file: Path) -> Component | None:
    """Return the exporter that writes files of this suffix; None if there is none. A built-in one is preferred."""
    found = [c for c in get_registry().components("exporter") if cast(ExporterSpec, c.spec).suffix == file.suffix]
    return min(found, key=lambda component: not component.builtin, default=None)


def open_exported(file: Path) -> ExportedModel:
    """Open an exported file, which may come from a stranger.

    Raises:
        FgvcError: it is damaged, was not written by fgvc, or opening it could run code that it brings.
    """
    component = exporter_of(file)
    assert component is not None
    if not cast(ExporterSpec, component.spec).safe:
        raise FgvcError(
            f"{file}: loading a {file.suffix} file can run code that is in it, so fgvc writes such files but does not "
            "load them; use the run, or export it with `format=onnx`"
        )
    exporter: Exporter = make(component, Exporter, options=component.options_type()())
    model = exporter.open(file)
    if not isinstance(model.document, dict):
        raise FgvcError(f"{file} was not exported by fgvc: it lacks class names and preprocessing")
    return model


class ExportedBackbone(Backbone):
    """Passes the images on to an `ExportedHead`, as the embedding.

    Args:
        file: names it in errors.
        preprocessing: gives size and normalization.
    """

    def __init__(self, file: Path, preprocessing: Preprocessing) -> None:
        super().__init__()
        size, mean, std = preprocessing.image_size, preprocessing.mean, preprocessing.std
        self.info = BackboneInfo(str(file), "convolutional", size, (), 3 * size * size, mean, std)

    def forward(self, images: Tensor, reads: Reads) -> Features:  # noqa: ARG002
        """Return the images."""
        return Features({}, images)

    def prune(self, reads: Reads) -> None:
        """Do nothing."""

    def cam_layer(self, map_index: int | None) -> CamLayer:  # noqa: ARG002
        """Raise `UsageError`: there are no layers to hook."""
        raise UsageError(f"{self.info.name} is an exported model, whose layers cannot be hooked; use the run")


class ExportedHead(Head):
    """Computes scores with an exported model.

    Args:
        file: names it in errors.
        model: the exported model.
        classes: number of classes K.
    """

    def __init__(self, file: Path, model: ExportedModel, classes: int) -> None:
        torch.nn.Module.__init__(self)
        self._file, self._model, self._classes = file, model, classes

    def reads(self, part: str | None = None) -> Reads:  # noqa: ARG002
        """Read the embedding: the images."""
        return Reads(embedding=True)

    def forward(self, features: Features, part: str | None = None) -> Tensor:  # noqa: ARG002
        """Return scores B,K.

        Raises:
            FgvcError: the file fails, or returns scores of another shape.
        """
        images = cast(Tensor, features.embedding)
        scores = self._model.scores(images.float().cpu())
        if scores.shape != (len(images), self._classes):
            raise FgvcError(
                f"{self._file} is damaged: it returns scores of shape {tuple(scores.shape)} for {len(images)} images "
                f"of {self._classes} classes; export it again"
            )
        return scores.to(images.device)

    def objectives(self, images: Tensor, targets: Tensor) -> Generator[Objective, Any, None]:  # noqa: ARG002
        """Raise `UsageError`: there is nothing to train."""
        raise UsageError(f"{self._file} is an exported model, which cannot be trained; use the run")


def exported_classifier(file: Path, model: ExportedModel, preprocessing: Preprocessing, cls: type[C]) -> C:
    """Return an exported model as a classifier on the CPU, in evaluation mode."""
    assert isinstance(model.document, dict)
    classes = model.document["classes"]
    backbone, head = ExportedBackbone(file, preprocessing), ExportedHead(file, model, len(classes))
    return cls(backbone, head, classes, preprocessing).eval()


def is_exported(classifier: Classifier) -> bool:
    """Return whether a classifier is an exported model."""
    return isinstance(classifier.head, ExportedHead)
