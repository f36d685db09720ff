"""Epochs on kept features: a frozen backbone runs once per image, and the head trains on what it computed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fgvc_cli.contracts import Classifier, Features, FittedHead, Reads, Split
from fgvc_cli.data.cache.policy import CacheMode
from fgvc_cli.data.loading import EvaluationLoader, ImageBatch, TrainingLoader
from fgvc_cli.data.staging import StagedBatch, Staging, soft_targets
from fgvc_cli.devices import autocast, loader_workers
from fgvc_cli.errors import FgvcError
from fgvc_cli.scoring.features import MEMORY_LIMIT, FeatureSettings, FrozenBackbone, SplitFeatures, split_features
from fgvc_cli.training.setup import Job, wants_channels_last
from fgvc_cli.training.state import Interrupted

logger = logging.getLogger(__name__)


class FeatureModel:
    """Backbone and head as one model, which runs the backbone only on images whose features are unknown.

    Images are known by identity: a head that crops or mixes them gets the features of what it made.

    Args:
        classifier: backbone and head.
    """

    def __init__(self, classifier: Classifier) -> None:
        self.classifier = classifier
        self._known: list[tuple[Tensor, Features]] = []

    def __call__(self, images: Tensor, part: str | None = None) -> Any:
        """Return the head's output; `part` as in `Head.forward`.

        Raises:
            FgvcError: the features are unknown, and the images are placeholders.
        """
        for known, features in self._known:
            if known is images:
                reads = self.classifier.head.reads(part)
                maps = {index: features.maps[index] for index in reads.maps}
                return self.classifier.head(Features(maps, features.embedding if reads.embedding else None), part)
        if any(known.stride(0) == 0 for known, _ in self._known):
            head = type(self.classifier.head).__name__
            raise FgvcError(f"the head {head} changes its images, although it declares `unchanged_images`")
        return self.classifier(images, part)

    @contextmanager
    def knowing(self, known: Sequence[tuple[Tensor, Features]]) -> Iterator[None]:
        """Use these features for these images in the block."""
        self._known = list(known)
        try:
            yield
        finally:
            self._known = []


@dataclass
class KeptFeatures:
    """The features of the training images, and of the validation images if the head needs no pixels.

    Attributes:
        job: what is trained.
        model: runs the head on the features.
        loaders: of the training and validation images; without pixels until the features are closed.
        train, val: the features; None for those that the backbone computes in each epoch.
    """

    job: Job
    model: FeatureModel
    loaders: tuple[TrainingLoader, EvaluationLoader | None]
    train: SplitFeatures
    val: SplitFeatures | None = None
    _pixel: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self._pixel = torch.full((), torch.nan, device=self.job.device)
        if not needs_pixels(self.job):
            for loader, features in zip(self.loaders, (self.train, self.val), strict=True):
                if loader is not None and features is not None:
                    loader.failures.update(features.failures)
                    loader.skip_pixels(features.readable)

    @contextmanager
    def staged(self, group: Sequence[ImageBatch], staging: Staging) -> Iterator[list[StagedBatch]]:
        """Return the batches of one update on the device; in the block, the model knows their features."""
        staged = staging(group) if needs_pixels(self.job) else [self._without_pixels(batch) for batch in group]
        readable = self.train.readable
        known = [
            (on_device.images, self._features(self.train, batch.indices))
            for on_device, batch in zip(staged, group, strict=True)
            if readable[batch.indices.numpy()].all()
        ]
        with self.model.knowing(known):
            yield staged

    def scores(self, batch: ImageBatch) -> Tensor:
        """Return scores B,K (float32) of validation images."""
        assert self.val is not None
        images = self._placeholder(len(batch.labels))
        known = [(images, self._features(self.val, batch.indices))]
        with self.model.knowing(known), autocast(self.job.device, self.job.precision):
            return self.job.classifier.head.predict(self.model, images).float()

    def close(self) -> None:
        """Close the caches, and let the loaders read pixels again."""
        for loader, features in zip(self.loaders, (self.train, self.val), strict=True):
            if loader is not None:
                loader.skip_pixels(None)
            if features is not None:
                features.close()

    def _features(self, split: SplitFeatures, indices: Tensor) -> Features:
        found = split.batch(indices, self.job.device)
        if not wants_channels_last(self.job.config, self.job.classifier.backbone):
            return found
        return found._replace(
            maps={i: value.contiguous(memory_format=torch.channels_last) for i, value in found.maps.items()}
        )

    def _placeholder(self, count: int) -> Tensor:
        """Return images B,3,S,S without memory; every pixel is NaN, so that a head that reads one does not train."""
        size = self.job.classifier.preprocessing.image_size
        return self._pixel.expand(count, 3, size, size)

    def _without_pixels(self, batch: ImageBatch) -> StagedBatch:
        job = self.job
        labels = batch.labels.to(job.device, non_blocking=True)
        targets = soft_targets(labels, len(job.classifier.class_names), job.config.train.label_smoothing)
        return StagedBatch(self._placeholder(len(labels)), targets, labels)


def obstacle(job: Job) -> str:
    """Return why features of the frozen backbone cannot be kept; empty if they can."""
    if job.sizes.grow:
        return f"images grow (`train.progressive_size={job.config.train.progressive_size}`)"
    changes = job.config.augment.changes
    return f"images are augmented ({', '.join(f'`augment.{change}`' for change in changes)})" if changes else ""


def needs_pixels(job: Job) -> bool:
    """Return whether a training on kept features needs the images too: for the head's crops, or for a teacher."""
    return job.teacher is not None or not job.classifier.head.unchanged_images


def notes(job: Job) -> list[str]:
    """Return a line on whether the frozen backbone runs once per image or in every epoch, and why."""
    if not job.freezing.whole(0) or isinstance(job.classifier.head, FittedHead):
        return []
    if cause := obstacle(job):
        return [f"the frozen backbone runs in every epoch, because {cause}"]
    if needs_pixels(job):
        also = "a teacher scores" if job.classifier.head.unchanged_images else "the head trains on parts of"
        return [
            f"the frozen backbone runs once on each training image; images are read in every epoch, because {also} them"
        ]
    return ["the frozen backbone runs once per image: images are not augmented, and epochs train on kept features"]


def without_images(job: Job) -> bool:
    """Return whether all epochs train on features that are held in memory, so that images are read once."""
    head, backbone = job.classifier.head, job.classifier.backbone
    if not job.freezing.whole(job.config.train.epochs - 1) or obstacle(job) or needs_pixels(job):
        return False
    each = FrozenBackbone(backbone, head.reads(), job.classifier.preprocessing).bytes_per_image
    return all(len(split) * each <= MEMORY_LIMIT for split in (job.splits.train, job.splits.val) if split is not None)


def features_of(
    job: Job, split: Split, reads: Reads, on_batch: Callable[[int], object], cache: CacheMode | None = None
) -> SplitFeatures:
    """Return the features of a split under the settings of a training; see `split_features`.

    Args:
        job: its backbone is frozen, or has its initial weights.
        split: the images.
        reads: the features to compute.
        on_batch: called with the number of images of each batch that is computed.
        cache: whether to keep them on disk; None: as `train.cache` says.
    """
    train = job.config.train
    workers = loader_workers(train.workers, job.device, job.ranks.launch.local_count)
    options = FeatureSettings(job.precision, job.batch_size, workers, train.strict_data, cache or train.cache)
    frozen = FrozenBackbone(job.classifier.backbone, reads, job.classifier.preprocessing)
    return split_features(frozen, split, job.dataset, options, on_batch)


def keep_features(
    job: Job,
    model: FeatureModel,
    loaders: tuple[TrainingLoader, EvaluationLoader | None],
    on_batch: Callable[[int], object],
) -> KeptFeatures | None:
    """Compute the features of the training images, and of the validation images if the head needs no pixels.

    Every process calls this; the first computes what the others then read. If they cannot be kept, a line says why, and
    the backbone runs in every epoch.

    Args:
        job: its backbone is frozen, and its images are not augmented.
        model: of its classifier.
        loaders: of the training and validation images.
        on_batch: called with the number of images of each batch that is computed.
    """
    cache: CacheMode = "off" if job.config.train.cache == "off" else "auto"

    def features(split: Split) -> SplitFeatures:
        found = features_of(job, split, job.classifier.head.reads(), on_batch, cache)
        for note in found.notes:
            logger.info(note)
        return found

    val = job.splits.val if job.ranks.first and not needs_pixels(job) else None
    splits = [job.splits.train, *([val] if val else [])]
    found: list[SplitFeatures] = []
    cause = ""
    with job.ranks.first_process_first():
        try:
            found.extend(map(features, splits))
        except Interrupted:
            raise
        except FgvcError as error:
            cause = str(error)
    if job.ranks.all_true(not cause):
        return KeptFeatures(job, model, loaders, *found)
    for split in found:
        split.close()
    logger.info(f"the frozen backbone runs in every epoch: {cause or 'another process cannot keep its features'}")
    return None
