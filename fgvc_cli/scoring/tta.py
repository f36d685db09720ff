"""Test-time augmentation: average the class probabilities of several views of each image."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from fgvc_cli.contracts import Classifier
from fgvc_cli.data.loading import ImageBatch
from fgvc_cli.data.views import Crops
from fgvc_cli.errors import UsageError
from fgvc_cli.runs.model_file import resize_classifier
from fgvc_cli.scoring.scores import scores_of

KINDS = ("flip", "crops", "sizes")
SIZE_UNIT = 32
"""The sizes of `sizes` differ by a multiple of this, in pixels: the largest stride or patch of common backbones."""


def parse_tta(wanted: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return the kinds of test-time augmentation in a text such as "flip,crops", or in a sequence, in a fixed order.

    Raises:
        UsageError: one is unknown.
    """
    texts = [wanted] if isinstance(wanted, str) else list(wanted or ())
    names = {name.strip() for text in texts for name in text.split(",")} - {"", "none"}
    unknown = sorted(names - set(KINDS))
    if unknown:
        raise UsageError(f"`tta={unknown[0]}`: unknown; choose from {', '.join(KINDS)}, or several (flip,crops)")
    return tuple(name for name in KINDS if name in names)


def further_sizes(size: int) -> tuple[int, int]:
    """Return an image size below and one above the classifier's own, about a seventh away: 192 and 256 for 224."""
    step = SIZE_UNIT * max(1, round(size / 7 / SIZE_UNIT))
    return size - step, size + step


@dataclass(frozen=True)
class Views:
    """The views of each image whose probabilities are averaged.

    Every view goes through the whole prediction of the head, one after the other, so that memory does not grow.

    Attributes:
        names: "flip" mirrors each view, "crops" takes the center and the four corners of the resized image, "sizes"
            repeats all of it at a smaller and a larger image size.
        resized: the classifier at the further sizes.
    """

    names: tuple[str, ...] = ()
    resized: tuple[Classifier, ...] = field(default=())

    @classmethod
    def of(cls, names: Sequence[str], classifier: Classifier, model_file: Path) -> Views:
        """Return the views of a classifier.

        Raises:
            UsageError: there is nothing to crop, or the classifier does not accept other image sizes.
        """
        preprocessing = classifier.preprocessing
        size = preprocessing.image_size
        if "crops" in names and preprocessing.crop_mode == "squash" and preprocessing.resize == size:
            raise UsageError(
                f"`tta=crops`: the classifier resizes images to {size}x{size} px without a crop (`crop_mode=squash`), "
                "so all crops are the same; use `tta=flip` or `tta=sizes`"
            )
        resized: tuple[Classifier, ...] = ()
        if "sizes" in names:
            try:
                resized = tuple(resize_classifier(classifier, model_file, side) for side in further_sizes(size))
            except UsageError as error:
                raise UsageError(f"`tta=sizes`: {error}") from error
        return cls(tuple(names), resized)

    def crops(self, classifier: Classifier) -> Crops | None:
        """Return the crops that a loader takes; None if the center crop is enough."""
        if not {"crops", "sizes"} & set(self.names):
            return None
        sizes = tuple(each.preprocessing for each in (classifier, *self.resized))
        return Crops(sizes, corners="crops" in self.names)

    @property
    def count(self) -> int:
        """Number of views per image."""
        return (1 + len(self.resized)) * (5 if "crops" in self.names else 1) * (2 if "flip" in self.names else 1)

    @property
    def note(self) -> str:
        """What a reader of the metrics should know; empty with a single view."""
        if not self.names:
            return ""
        return f"Test-time augmentation ({', '.join(self.names)}): mean probabilities of {self.count} views per image."

    def scores(self, classifier: Classifier, batch: ImageBatch, precision: str) -> Tensor:
        """Return scores B,K of a batch (float32): logits, or with several views the logarithm of mean probabilities."""
        if not self.names:
            return scores_of(classifier, batch.pixels, precision)
        views = [scores_of(of, pixels, precision).log_softmax(dim=1) for of, pixels in self._each(classifier, batch)]
        return torch.stack(views).logsumexp(dim=0) - math.log(len(views))

    def _each(self, classifier: Classifier, batch: ImageBatch) -> Iterator[tuple[Classifier, Tensor]]:
        """Yield pixels B,3,S,S of each view, with the classifier for that size."""
        crops = batch.crops or (batch.pixels.unsqueeze(1),)
        for of, of_size in zip((classifier, *self.resized), crops, strict=True):
            for pixels in of_size.unbind(1):
                yield of, pixels
                if "flip" in self.names:
                    yield of, pixels.flip(3)
