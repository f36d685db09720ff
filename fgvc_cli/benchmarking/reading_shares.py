"""What a process that reads training images spends its time on."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING

import numpy as np

from fgvc_cli.data.augmentation import Augmentation, placed
from fgvc_cli.data.images import ImageError, read_image
from fgvc_cli.data.order import seeded
from fgvc_cli.data.store.kept import KeptImages
from fgvc_cli.data.store.rendition import Rendition
from fgvc_cli.training.setup import Job

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

SAMPLE, SECONDS = 32, 1.0
"""Images that are looked at, and the time after which no other is begun."""


def shares_note(job: Job, kept: KeptImages | None) -> str:
    """Say how the work on an image divides into getting it and augmenting it, from a few images in this process.

    Args:
        job: gives the images and what is done to them.
        kept: where they are read from; None: they are decoded (and resized, unless that comes after the policy).
    """
    images = job.splits.train.images
    augmentation = Augmentation(placed(job.config.augment, job.device), job.classifier.preprocessing)
    rendition = Rendition.augmented(augmentation)

    def decoded(index: int) -> PILImage:
        image = read_image(images[index], None if rendition is None else rendition.side)
        return image if rendition is None else rendition(image)

    def found(index: int) -> PILImage | None:
        return None if kept is None else kept.get(index)

    with nullcontext() if kept is None else kept.batch():
        getting, augmenting = _spent(decoded if kept is None else found, augmentation, len(images))
    if not getting:
        return ""
    then = "augments" if augmentation.options.where == "workers" else "crops"
    share = round(100 * getting / (getting + augmenting))
    return f"a reading process {_verb(images[0], kept)} for {share} % of its time, and {then} for {100 - share} %"


def _verb(image: object, kept: KeptImages | None) -> str:
    """Say what getting an image is."""
    if kept is not None:
        return "reads the store"
    return "resizes" if isinstance(image, np.ndarray) else "decodes"


def _spent(get: Callable[[int], PILImage | None], augmentation: Augmentation, count: int) -> tuple[float, float]:
    """Return the seconds that getting images and augmenting them took; the first, which warms up, is not counted."""
    getting = augmenting = 0.0
    chosen = np.unique(np.linspace(0, count - 1, min(SAMPLE, count)).astype(int)).tolist()
    for number, index in enumerate([chosen[0], *chosen]):
        started = time.perf_counter()
        try:
            image = get(index)
        except ImageError:
            continue
        if image is None:
            continue
        got = time.perf_counter()
        with seeded(index):
            augmentation.begun(image)
        if number:
            getting, augmenting = getting + got - started, augmenting + time.perf_counter() - got
        if getting + augmenting > SECONDS:
            break
    return getting, augmenting
