"""Progressive image size: the first epochs train on smaller images, which cost less."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor

from fgvc_cli.config.run_config import RunConfig
from fgvc_cli.contracts import Classifier, Head
from fgvc_cli.devices import is_out_of_memory
from fgvc_cli.enforcement import make
from fgvc_cli.errors import UsageError
from fgvc_cli.scoring.scores import evaluation_mode


@dataclass(frozen=True)
class ImageSizeSchedule:
    """The side of the training images by epoch: it grows in equal steps and is full in the last third of the epochs.

    Sizes below the full one are rounded to whole points of the deepest feature map. Evaluation uses the full size.

    Reference: Tan, Le 2021, EfficientNetV2, arXiv 2104.00298, section 4 (progressive learning).

    Attributes:
        epochs: number of epochs.
        first: size in the first epoch, pixels.
        full: image size of the classifier, pixels.
        multiple: sizes below the full one are multiples of this.
    """

    epochs: int
    first: int
    full: int
    multiple: int = 1

    @property
    def growing(self) -> int:
        """Number of epochs before the last third."""
        return self.epochs - -(-self.epochs // 3)

    @property
    def grow(self) -> bool:
        """Whether the size changes."""
        return any(self.at(epoch) != self.full for epoch in range(self.growing))

    def at(self, epoch: int) -> int:
        """Return the size in an epoch, counted from 0."""
        if epoch >= self.growing or self.first >= self.full:
            return self.full
        size = self.first + (self.full - self.first) * epoch / self.growing
        return min(self.full, max(1, round(size / self.multiple)) * self.multiple)

    def resized(self, images: Tensor, epoch: int, layout: torch.memory_format) -> Tensor:
        """Return images B,3,S,S at the size of an epoch (bilinear, antialiased) and in a memory format."""
        size = self.at(epoch)
        if images.shape[-1] == size:
            return images
        smaller = F.interpolate(images, (size, size), mode="bilinear", align_corners=False, antialias=True)
        return smaller.contiguous(memory_format=layout)

    def epochs_left(self, epoch: int) -> float:
        """Return the number of epochs from this one on, counted in epochs of as many pixels as this one."""
        pixels = [self.at(following) ** 2 for following in range(epoch, self.epochs)]
        return sum(pixels) / self.at(epoch) ** 2

    def notes(self) -> list[str]:
        """Return a line with the sizes; none if they do not change."""
        if not self.grow:
            return []
        spans = []
        for size, group in groupby(range(self.epochs), self.at):
            epochs = list(group)
            last = "" if len(epochs) == 1 else f"-{epochs[-1] + 1}"
            spans.append(f"{size} px in {epochs[0] + 1}{last}")
        return [f"image size by epoch: {', '.join(spans)}; evaluation at {self.full} px"]


def image_size_schedule(config: RunConfig, classifier: Classifier) -> ImageSizeSchedule:
    """Return the image sizes of a training, and let the classifier take them.

    Raises:
        UsageError: the backbone or the head takes only the size that it was built for.
    """
    train, info = config.train, classifier.backbone.info
    full = train.image_size
    multiple = max([1, *(each.stride for each in info.maps)])
    schedule = ImageSizeSchedule(train.epochs, train.progressive_size or full, full, multiple)
    smaller = sorted({schedule.at(epoch) for epoch in range(schedule.growing)} - {full})
    classifier.image_sizes = (full, *smaller)
    for size in smaller:
        try:
            _check(config, classifier, size)
        except UsageError as error:
            raise UsageError(
                f"`train.progressive_size={train.progressive_size}`: {error}; try a larger one, or 0 (off)"
            ) from error
    return schedule


def _check(config: RunConfig, classifier: Classifier, size: int) -> None:
    """Raise `UsageError` unless backbone and head take images of that size with the weights that they have."""
    choice, full, own = config.head, classifier.preprocessing.image_size, classifier.head
    info = classifier.backbone.info_at(size)
    there = make(choice.component, Head, backbone=info, classes=len(classifier.class_names), options=choice.options)
    shapes, others = ({n: v.shape for n, v in head.state_dict().items()} for head in (own, there))
    differing = [name for name in {**others, **shapes} if shapes.get(name) != others.get(name)]
    if differing:
        raise UsageError(
            f"head {choice.name} needs other weights for images of {size} px than of {full} px: {differing[0]} depends "
            "on the size"
        )
    images = torch.zeros(1, 3, size, size, device=classifier.device)
    try:
        with evaluation_mode(classifier), torch.no_grad():
            classifier.scores(images)
    except (RuntimeError, ValueError, AssertionError, LookupError) as error:
        if is_out_of_memory(error):
            raise
        reason = str(error).partition("\n")[0].rstrip(".")
        raise UsageError(f"{info.name} with head {choice.name} does not take images of {size} px ({reason})") from error
