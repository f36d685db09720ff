"""An explainer that is being checked, and the classifier that it explains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from fgvc_cli.contracts import Classifier, Explainer
from fgvc_cli.errors import UsageError
from fgvc_cli.explaining.explainers import is_in_range
from fgvc_cli.specs import ExplainerSpec
from fgvc_cli.testing.check import ContractBroken, NotApplicable, expect
from fgvc_cli.testing.models import classifier_of, lively
from fgvc_cli.testing.subject import Subject
from fgvc_cli.testing.tiny.backbones import TinyConvolutional
from fgvc_cli.testing.tiny.heads import TinyHead
from fgvc_cli.testing.tiny.images import CLASSES, images_of, labels_of
from fgvc_cli.testing.tiny.isolation import seeded

IMAGES = 3
"""Images that are explained together."""


@dataclass(frozen=True)
class ExplainerSubject:
    """An explainer, and a small classifier whose head reads the deepest map."""

    subject: Subject

    @property
    def spec(self) -> ExplainerSpec:
        """What its plugin says of it."""
        return cast(ExplainerSpec, self.subject.component.spec)

    def make(self) -> Explainer:
        """Build it."""
        explainer: Explainer = self.subject.make(Explainer, options=self.subject.options())
        return explainer

    def classifier(self, seed: int = 0) -> Classifier:
        """Make the kit's classifier, with weights that tell images apart."""
        torch.manual_seed(seed)
        classifier = classifier_of(TinyConvolutional(), lambda info: TinyHead(info, CLASSES))
        lively(classifier)
        return classifier.eval()

    def batch(self, count: int = IMAGES) -> tuple[Tensor, Tensor]:
        """Return images and a class to explain for each."""
        return images_of(count, TinyConvolutional().info.image_size), labels_of(count)

    def maps(self, classifier: Classifier, images: Tensor, targets: Tensor) -> Tensor:
        """Explain, each time from one seed, and see that the maps are maps."""
        explainer = self.make()
        accept(explainer, classifier)
        with seeded(1):
            maps = explainer.explain(classifier, images, targets)
        expect_maps(maps, images)
        return maps


def accept(explainer: Explainer, classifier: Classifier) -> None:
    """Ask an explainer whether it can explain a classifier; `NotApplicable` with its reason if it cannot."""
    try:
        explainer.check(classifier)
    except UsageError as error:
        raise NotApplicable(str(error)) from None


def expect_maps(maps: Any, images: Tensor) -> None:
    """Raise unless these are maps B,S,S of those images, float32, in [0, 1], without gradient."""
    shape = (len(images), *images.shape[-2:])
    found = f"{maps.dtype} of shape {tuple(maps.shape)}" if isinstance(maps, Tensor) else f"a {type(maps).__name__}"
    expect(
        isinstance(maps, Tensor) and maps.shape == shape and maps.dtype == torch.float32,
        f"float32 maps of shape {shape}, one an image",
        f"explain returns {found}",
        "resize to the images (bilinear) and use .float()",
    )
    low, high = float(maps.detach().min()), float(maps.detach().max())
    expect(
        bool(is_in_range(maps).all()),
        "values in [0, 1]",
        f"they go from {low:.4g} to {high:.4g}",
        "scale each map by its own largest value, and take care of a map of zeros",
    )
    expect(not maps.requires_grad, "maps without gradient", "they carry one", "detach() them")


def expect_explains(explainer: Explainer, classifier: Classifier, images: Tensor, targets: Tensor) -> None:
    """Raise unless an explainer gives maps of these images, or says in words that it cannot."""
    accept(explainer, classifier)
    maps = explainer.explain(classifier, images, targets)
    expect_maps(maps, images)
    if any(parameter.grad is not None for parameter in classifier.parameters()):
        raise ContractBroken("no .grad of a parameter", "explain leaves some", "use torch.autograd.grad")
