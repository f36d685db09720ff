"""Compute the embeddings of images with the backbone of a run, or with a pretrained one."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from fgvc_cli.contracts import Backbone, Preprocessing, Reads, Split
from fgvc_cli.data.loading import EvaluationLoader
from fgvc_cli.devices import Precision, loader_workers, pick_device, resolve_precision
from fgvc_cli.errors import UsageError
from fgvc_cli.options import build
from fgvc_cli.registry import Registry
from fgvc_cli.runs.model_file import build_backbone
from fgvc_cli.scoring.features import FrozenBackbone
from fgvc_cli.scoring.model import InferenceSettings, find_model, load
from fgvc_cli.training.weights.choice import apply, choose
from fgvc_cli.training.weights.parts import load_backbone

logger = logging.getLogger(__name__)

IMAGE_SIZE = 224
"""Default side of the images in pixels, for a backbone that is not of a run."""

CROP_PCT = 0.875
"""Fraction of the resized side that the crop keeps, for a backbone that is not of a run."""


@dataclass(frozen=True)
class EmbeddedBatch:
    """Embeddings of a batch.

    Attributes:
        indices: int64 B, positions of the images in the split.
        embeddings: float32 B,D.
    """

    indices: np.ndarray
    embeddings: np.ndarray


@dataclass(frozen=True)
class Embedder:
    """Computes embeddings; a backbone that has no embedding gives the mean of its deepest map over all positions.

    Attributes:
        frozen: the backbone.
        precision, batch_size, workers: how to compute.
        failures: why an image has no embedding, by its key; complete after each split.
    """

    frozen: FrozenBackbone
    precision: Precision
    batch_size: int
    workers: int
    failures: dict[str, str] = field(default_factory=dict)

    @property
    def width(self) -> int:
        """Width D of the embeddings."""
        return self.frozen.embedding_width or next(iter(self.frozen.shapes.values()))[0]

    def batches(self, split: Split) -> Iterator[EmbeddedBatch]:
        """Yield the embeddings of a split batch by batch; images that cannot be read are skipped with a warning."""
        pinned = next(self.frozen.backbone.parameters()).is_cuda
        loader = EvaluationLoader(split, self.frozen.preprocessing, self.batch_size, self.workers, pinned)
        try:
            for batch in loader:
                found = self.frozen(batch.pixels, self.precision)
                values = found.embedding
                if values is None:
                    values = next(iter(found.maps.values())).mean(dim=(2, 3))
                yield EmbeddedBatch(batch.indices.numpy(), values.cpu().numpy())
        finally:
            loader.close()
        self.failures.update(loader.failures)


def open_embedder(
    run: Path | None,
    backbone: str | None,
    weights: str | None,
    image_size: int | None,
    inference: InferenceSettings,
    registry: Registry,
    offline: bool = False,
) -> Embedder:
    """Return the embedder of a run, or of a backbone with published weights or those of a file.

    Args:
        run: its folder or model file; None: the latest finished run, unless a backbone is given.
        backbone: name of a backbone to use instead.
        weights, image_size: of the backbone; None: "auto" and `IMAGE_SIZE`. A run has its own.
        inference: how to compute.
        registry: to find the backbone.
        offline: whether downloads are forbidden.

    Raises:
        UsageError: `run` and `backbone` are given, or a setting of the backbone without one; or see `of_backbone`.
        FgvcError: the run or the weights are not available.
    """
    if backbone is None:
        for name, value in (("weights", weights), ("image_size", image_size)):
            if value is not None:
                raise UsageError(f"`{name}={value}` is for `backbone`; a run has its own {name.replace('_', ' ')}")
        return of_run(find_model(run), inference)
    if run is not None:
        raise UsageError("`run` and `backbone` exclude each other")
    return of_backbone(backbone, image_size or IMAGE_SIZE, weights or "auto", inference, registry, offline)


def of_run(model_file: Path, inference: InferenceSettings) -> Embedder:
    """Return the embedder of a run's backbone, with the run's preprocessing.

    Raises:
        FgvcError: the run cannot be loaded.
    """
    ready = load(model_file, inference)
    classifier = ready.classifier
    reads = classifier.head.reads()
    if not reads.embedding:
        logger.info(
            f"the head of this run reads feature maps alone: the embedding is the mean of map {reads.maps[-1]}, the "
            "deepest"
        )
    chosen = Reads(embedding=True) if reads.embedding else Reads((reads.maps[-1],))
    frozen = FrozenBackbone(classifier.backbone, chosen, classifier.preprocessing)
    return Embedder(frozen, ready.precision, ready.batch_size, ready.workers)


def of_backbone(
    name: str, image_size: int, weights: str, inference: InferenceSettings, registry: Registry, offline: bool = False
) -> Embedder:
    """Return the embedder of a backbone with published weights, or with those of a file.

    Raises:
        UsageError: there is no such backbone, or it does not accept the image size.
        FgvcError: the weights are not available.
    """
    component = registry.find("backbone", name)
    device = pick_device(inference.device)
    torch.manual_seed(0)
    backbone = build_backbone(component, build(component.options_type(), {}, "backbone"), image_size)
    choice = choose(backbone, weights, offline)
    if choice.kind != "none":
        logger.info(choice.text)
    if choice.file is not None:
        for note in load_backbone(choice.file, backbone).notes:
            logger.info(note)
    elif apply(choice, backbone) is None:
        reason = choice.text.partition(": training from scratch")[0]
        logger.warning(f"{reason}: the weights are random, and the embeddings say little about the images")
    return _embedder(backbone.to(device), image_size, inference, resolve_precision(inference.precision, device))


def _embedder(backbone: Backbone, image_size: int, inference: InferenceSettings, precision: Precision) -> Embedder:
    info, reads = backbone.info, Reads(embedding=True)
    backbone.prune(reads)
    if info.channels_last:
        backbone = backbone.to(memory_format=torch.channels_last)
    resize = round(image_size / CROP_PCT)
    preprocessing = Preprocessing(image_size, resize, info.mean, info.std, interpolation="bicubic")
    workers = loader_workers(inference.workers, next(backbone.parameters()).device)
    return Embedder(FrozenBackbone(backbone, reads, preprocessing), precision, inference.batch_size, workers)


def labeled_rows(split: Split, class_names: Sequence[str], indices: np.ndarray) -> list[tuple[str, str, str]]:
    """Return path (or key), class name and split of images; without class names, the last two are empty."""
    rows = []
    for i in indices.tolist():
        image = split.images[i]
        name = str(image) if isinstance(image, Path) else split.keys[i]
        rows.append((name, class_names[split.labels[i]], split.name) if class_names else (name, "", ""))
    return rows
