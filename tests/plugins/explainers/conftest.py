"""Classifiers on small backbones with lively weights, explainers by name, and a network of one convolution."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fgvc_cli.contracts import (
    Backbone,
    BackboneInfo,
    CamLayer,
    Classifier,
    Explainer,
    Features,
    Head,
    MapInfo,
    Preprocessing,
    Reads,
)
from fgvc_cli.options import build
from fgvc_cli.registry import get_registry

CLASSES = 5
SMALL = {
    "linear": {},
    "pim": {"fpn_size": 16, "num_selects": 4, "joints_divisor": 4},
    "cmal": {"expert_width": 16, "map_channels": 32, "hidden_width": 16},
}
"""Options of the built-in heads."""


def lively(model: nn.Module) -> None:
    """Give weights and batch-norm statistics values that let images differ in their scores."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.3, 0.3)
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
        elif isinstance(module, nn.Linear) and module.out_features == CLASSES:
            nn.init.normal_(module.weight, std=0.5)


@pytest.fixture(scope="session")
def classifier_of(classifier_of: Callable[..., Classifier]) -> Callable[..., Classifier]:
    """Makes a classifier from a seed: `classifier_of("timm/test_resnet", "pim", image_size=64)`."""

    def make(backbone: str, head: str, image_size: int = 64, **backbone_options: Any) -> Classifier:
        classifier = classifier_of(backbone, head, image_size, CLASSES, SMALL.get(head, {}), backbone_options)
        lively(classifier)
        return classifier.eval()

    return make


@pytest.fixture(scope="session")
def explainer_of() -> Callable[..., Explainer]:
    """Makes an explainer: `explainer_of("gradcam", map=2)`; activations are taken where the score is read."""

    def make(name: str, **options: Any) -> Explainer:
        component = get_registry().find("explainer", name)
        if "least_side" in component.options_type().__dataclass_fields__:
            options = {"least_side": 1, **options}
        explainer: Explainer = component.load()(options=build(component.options_type(), options, "explainer"))
        return explainer

    return make


@pytest.fixture(scope="session")
def images_of() -> Callable[..., tuple[Tensor, Tensor]]:
    """Makes images with a few colored blobs each, normalized as (x - 0.5) / 0.5, and a class for each."""

    def make(count: int, size: int = 64, seed: int = 1) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        images = 0.3 * torch.randn(count, 3, size, size, generator=generator)
        at = torch.arange(size)
        for image in images:
            for _ in range(3):
                (y, x), color = torch.rand(2, 1, generator=generator) * size, torch.randn(3, 1, 1, generator=generator)
                image += 3 * color * torch.exp(-((at[:, None] - y) ** 2 + (at - x) ** 2) / (size / 8) ** 2)
        return images, torch.randint(0, CLASSES, (count,), generator=generator)

    return make


class TinyBackbone(Backbone):
    """One convolution and ReLU: two maps of 3 x 3 for images of 6 x 6."""

    def __init__(self) -> None:
        super().__init__()
        self.info = BackboneInfo("tiny", "convolutional", 6, (MapInfo(2, 2, (3, 3)),), 2, (0.5,) * 3, (0.5,) * 3)
        self.stage = nn.Sequential(nn.Conv2d(3, 2, 2, 2), nn.ReLU())

    def forward(self, images: Tensor, reads: Reads) -> Features:
        return Features({0: self.stage(images)}, None)

    def prune(self, reads: Reads) -> None:
        pass

    def cam_layer(self, map_index: int | None) -> CamLayer:
        return CamLayer(self.stage, "BCHW")


class TinyHead(Head):
    """Every activation has a weight of its own for each class; what it reads may be written into first."""

    def __init__(self, backbone: BackboneInfo, classes: int, options: Any = None) -> None:
        super().__init__(backbone, classes, options)
        self.classify = nn.Linear(18, classes)
        self.inplace = False

    def reads(self, part: str | None = None) -> Reads:
        return Reads((0,))

    def forward(self, features: Features, part: str | None = None) -> Tensor:
        points = features.maps[0]
        return self.classify((points.mul_(2) if self.inplace else points).flatten(1))

    def objectives(self, images: Tensor, targets: Tensor):
        raise NotImplementedError


@pytest.fixture
def tiny() -> Classifier:
    """A classifier whose score is linear in the activations."""
    torch.manual_seed(3)
    backbone = TinyBackbone()
    head = TinyHead(backbone.info, CLASSES)
    preprocessing = Preprocessing(6, 6, backbone.info.mean, backbone.info.std)
    return Classifier(backbone, head, [str(k) for k in range(CLASSES)], preprocessing).eval()
