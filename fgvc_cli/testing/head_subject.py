"""A head that is being checked, and the small backbones that it is put on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import torch
from torch import Tensor

from fgvc_cli.contracts import BackboneInfo, Classifier, Head
from fgvc_cli.errors import UsageError
from fgvc_cli.specs import HeadSpec
from fgvc_cli.testing.check import ContractBroken, NotApplicable
from fgvc_cli.testing.models import classifier_of, lively
from fgvc_cli.testing.subject import Subject
from fgvc_cli.testing.tiny.backbones import TinyBackbone, TinyConvolutional, TinyTokens
from fgvc_cli.testing.tiny.images import CLASSES, images_of, labels_of

IMAGES = 4
"""Images of a batch: with fewer, batch normalisation has little to work on."""


@dataclass(frozen=True)
class HeadSubject:
    """A head and where it is checked: on the first of the kit's backbones that it takes."""

    subject: Subject

    @property
    def spec(self) -> HeadSpec:
        """What its plugin says of it."""
        return cast(HeadSpec, self.subject.component.spec)

    def make(self, info: BackboneInfo) -> Head:
        """Build it with random weights."""
        options = self.subject.options()
        head: Head = self.subject.make(Head, backbone=info, classes=CLASSES, options=options)
        return head

    def classifier(self, backbone: TinyBackbone | None = None, seed: int = 0) -> Classifier:
        """Put it on a backbone (by default: the one it is checked on), weights by a seed."""
        torch.manual_seed(seed)
        return classifier_of(self.home() if backbone is None else backbone, self.make)

    def lively(self) -> Classifier:
        """Put it on that backbone, in evaluation mode, with weights that tell images apart."""
        classifier = self.classifier()
        lively(classifier)
        return classifier.eval()

    def home(self) -> TinyBackbone:
        """Make the backbone that it is checked on.

        Raises:
            ContractBroken: it takes neither.
        """
        if isinstance(self._home, str):
            raise ContractBroken("a head that works on four small feature maps", self._home, _FIT)
        return self._home()

    def takes(self, backbone: type[TinyBackbone]) -> None:
        """Raise `NotApplicable` if it does not work with one of the kit's backbones, saying why."""
        if refusal := self._refusal(backbone):
            raise NotApplicable(refusal)

    def batch(self, images: int = IMAGES, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Return images of the size of that backbone, and class indices."""
        return images_of(images, self.home().info.image_size, seed), labels_of(images)

    @cached_property
    def _home(self) -> type[TinyBackbone] | str:
        tried: Sequence[type[TinyBackbone]] = (TinyConvolutional, TinyTokens)
        refusals = [self._refusal(backbone) for backbone in tried]
        fitting = [b for b, refusal in zip(tried, refusals, strict=True) if not refusal]
        return fitting[0] if fitting else f"it refuses both of the kit's backbones: {'; '.join(refusals)}"

    def _refusal(self, backbone: type[TinyBackbone]) -> str:
        info = backbone().info
        if not self.spec.accepts(tuple(m.stride for m in info.maps)):
            different = " of different stride" if self.spec.distinct_strides else ""
            return f"its spec asks for {self.spec.maps} maps{different}, and {info.name} has not as many"
        try:
            self.make(info)
        except UsageError as error:
            return str(error)
        return ""


_FIT = "let it take small maps, or give contract() the options with which it does"
