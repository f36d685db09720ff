"""Fit a head to the features of a frozen backbone, in place of epochs."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F

from fgvc_cli.contracts import Features, FittedHead, LabeledFeatures
from fgvc_cli.data.splits import quoted_names
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.runs.results import EpochMetrics, TrainMetrics, ValMetrics
from fgvc_cli.scoring.scores import Scores, evaluating, val_metrics
from fgvc_cli.training.kept_features import features_of
from fgvc_cli.training.setup import Job

logger = logging.getLogger(__name__)

ROWS = 4096
"""Number of images that the head scores at once."""


def fit_head(job: Job, on_images: Callable[[int], object]) -> tuple[EpochMetrics, dict[str, str]]:
    """Compute the features of the training and validation images, and fit the head to them.

    Args:
        job: its head is a `FittedHead`.
        on_images: called with the number of images of each batch whose features are computed.

    Returns:
        The metrics of both splits, as after one epoch, and the reasons of unreadable images by split and key.

    Raises:
        UsageError: several processes train, or the head's options do not fit the images.
        FgvcError: features cannot be kept, a class has no readable image, or no validation image can be read.
    """
    started, head = time.perf_counter(), cast(FittedHead, job.classifier.head)
    _check_job(job)
    unreadable: dict[str, str] = {}
    found: dict[str, LabeledFeatures] = {}
    for name, split in (("train", job.splits.train), ("val", job.splits.val)):
        if split is None or not len(split):
            continue
        features = features_of(job, split, head.reads(), on_images)
        features.close()
        unreadable |= {f"{split.name}/{key}": reason for key, reason in features.failures.items()}
        for note in features.notes:
            logger.info(note)
        found[name] = features.labeled(job.device)
    train, val = found["train"], found.get("val")
    seconds = time.perf_counter() - started
    _check_classes(job, train)
    if val is not None and not len(val.labels):
        raise FgvcError(f"None of the {len(unreadable)} validation images can be read; replace them, or change `data`")
    for line in head.fit(train, val):
        logger.info(line)
    of_train = _metrics(job, train)
    return EpochMetrics(
        1,
        TrainMetrics(of_train.images, {}, of_train.loss, of_train.top1, of_train.top5),
        None if val is None else _metrics(job, val),
        images_per_second=round(sum(len(each.labels) for each in found.values()) / max(seconds, 1e-9), 2),
        seconds=round(time.perf_counter() - started, 3),
    ), unreadable


def _check_job(job: Job) -> None:
    """Refuse what a fitted head cannot do, and warn of what makes no sense.

    Raises:
        UsageError: several processes train together.
    """
    name = job.config.head.name
    if job.ranks.count > 1:
        raise UsageError(f"head {name} is fitted by one process; leave out `devices`, or start it without torchrun")
    if job.config.train.weights == "none":
        logger.warning(
            f"the backbone {job.config.backbone.name} has random weights, and head {name} does not train it: expect "
            "poor results; pass pretrained weights (`weights`)"
        )


def _check_classes(job: Job, train: LabeledFeatures) -> None:
    """Refuse classes without a readable image.

    Raises:
        FgvcError: there are some.
    """
    names = job.classifier.class_names
    counts = torch.bincount(train.labels.cpu(), minlength=len(names))
    if missing := [name for name, count in zip(names, counts.tolist(), strict=True) if not count]:
        raise FgvcError(f"no training image of {quoted_names(missing)} can be read; replace them")


def _metrics(job: Job, found: LabeledFeatures) -> ValMetrics:
    """Score images whose features are known, without augmentation."""
    features, labels = found
    scores = []
    with evaluating(job.classifier):
        for start in range(0, len(labels), ROWS):
            rows = slice(start, start + ROWS)
            embedding = None if features.embedding is None else features.embedding[rows]
            part = Features({i: value[rows] for i, value in features.maps.items()}, embedding)
            scores.append(job.classifier.head(part).float())
        logits = torch.cat(scores)
        loss = float(F.cross_entropy(logits, labels))
    return val_metrics(Scores(logits.softmax(dim=1).cpu().numpy(), labels.cpu().numpy(), [], loss))
