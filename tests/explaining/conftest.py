"""A classifier that sees a single patch, explainers that do or do not find it, and run folders."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from fgvc_cli import ExplainerSpec, option, progress
from fgvc_cli.contracts import (
    Backbone,
    BackboneInfo,
    CamLayer,
    Classifier,
    Explainer,
    Features,
    Head,
    Preprocessing,
    Reads,
)
from fgvc_cli.errors import UsageError
from fgvc_cli.explaining import dataset
from fgvc_cli.explaining.explainers import NamedExplainer, make_explainer
from fgvc_cli.registry import Registry, get_registry
from fgvc_cli.registry.records import Component, Origin, PluginRecord
from fgvc_cli.runs.model_file import save
from fgvc_cli.scoring.model import ReadyClassifier

SIDE = 8
CLASSES = ("dark", "lit", "unseen")
CORNER = (slice(0, 4), slice(0, 4))
"""The patch that decides: 16 of 64 pixels."""


class PatchBackbone(Backbone):
    """The embedding is the fraction of bright red pixels in the patch."""

    def __init__(self, patch: tuple[slice, slice]) -> None:
        super().__init__()
        self.info = BackboneInfo("patch", "convolutional", SIDE, (), 1, (0.0,) * 3, (1.0,) * 3)
        self.patch = patch
        self.calls: list[int] = []
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, images: Tensor, reads: Reads) -> Features:
        self.calls.append(len(images))
        patch = images[(slice(None), 0, *self.patch)]
        return Features({}, self.weight * (patch > 0.9).float().mean(dim=(1, 2))[:, None])

    def prune(self, reads: Reads) -> None:
        raise NotImplementedError

    def cam_layer(self, map_index: int | None) -> CamLayer:
        raise NotImplementedError


class LitHead(Head):
    """Predicts "lit" with the embedding as probability, "dark" with the rest, other classes with almost 0."""

    def __init__(self, backbone: BackboneInfo, classes: int, options: Any = None) -> None:
        super().__init__(backbone, classes, options)
        self.others = classes - 2

    def reads(self, part: str | None = None) -> Reads:
        return Reads((), True)

    def forward(self, features: Features, part: str | None = None) -> Tensor:
        assert features.embedding is not None
        lit = features.embedding[:, 0].clamp(1e-6, 1 - 1e-6)
        return torch.stack([1 - lit, lit, *[torch.full_like(lit, 1e-9)] * self.others], dim=1).log()

    def objectives(self, images: Tensor, targets: Tensor) -> Iterator[Any]:
        raise NotImplementedError


@dataclass(frozen=True)
class Softness:
    softness: float = option(0.0, "added everywhere", minimum=0.0, maximum=1.0)


class Perfect(Explainer):
    """Marks exactly the bright red pixels."""

    def __init__(self, options: Softness) -> None:
        self.options = options

    def explain(self, classifier: Classifier, images: Tensor, targets: Tensor) -> Tensor:
        return (images[:, 0] > 0.9).float().clamp(min=self.options.softness)


class Inverted(Explainer):
    """Marks all pixels except the bright red ones."""

    def __init__(self, options: Any) -> None:
        self.options = options

    def explain(self, classifier: Classifier, images: Tensor, targets: Tensor) -> Tensor:
        return (images[:, 0] <= 0.9).float()


class Center(Explainer):
    """Marks the central pixel."""

    def __init__(self, options: Any) -> None:
        self.options = options

    def explain(self, classifier: Classifier, images: Tensor, targets: Tensor) -> Tensor:
        maps = torch.zeros_like(images[:, 0])
        maps[:, images.shape[2] // 2, images.shape[3] // 2] = 1
        return maps


class Refusing(Inverted):
    """Refuses every classifier."""

    def check(self, classifier: Classifier) -> None:
        raise UsageError("refusing explains no classifier")


class Misshapen(Inverted):
    """Returns maps of the wrong size."""

    def explain(self, classifier: Classifier, images: Tensor, targets: Tensor) -> Tensor:
        return torch.zeros(len(images), 2, 2)


class NotANumber(Inverted):
    """Returns NaN in the map of the first image."""

    def explain(self, classifier: Classifier, images: Tensor, targets: Tensor) -> Tensor:
        maps = super().explain(classifier, images, targets)
        maps[0, 0, 0] = torch.nan
        return maps


class TooHigh(Inverted):
    """Returns values above 1."""

    def explain(self, classifier: Classifier, images: Tensor, targets: Tensor) -> Tensor:
        return 10 * super().explain(classifier, images, targets)


EXPLAINERS = {
    "perfect": Perfect,
    "inverted": Inverted,
    "center": Center,
    "refusing": Refusing,
    "misshapen": Misshapen,
    "not-a-number": NotANumber,
    "too-high": TooHigh,
}


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry:
    """The installed components and the explainers of this file."""
    module = ModuleType("made_explainers")
    vars(module).update({"Softness": Softness, **{c.__name__: c for c in EXPLAINERS.values()}})
    monkeypatch.setitem(sys.modules, "made_explainers", module)
    origin = Origin("made", "1.0")
    options = {"perfect": "made_explainers:Softness"}
    components = tuple(
        Component(ExplainerSpec(name, f"made_explainers:{made.__name__}", options=options.get(name, "")), origin)
        for name, made in EXPLAINERS.items()
    )
    record = PluginRecord("made", origin, "made_explainers", "loaded", components=components)
    return Registry([*get_registry().plugins, record])


@pytest.fixture
def ready() -> Callable[..., ReadyClassifier]:
    """Function that builds a classifier of one patch, by default the corner."""

    def make(
        patch: tuple[slice, slice] = CORNER,
        model_file: Path = Path("run/model.safetensors"),
        batch_size: int = 4,
        class_names: tuple[str, ...] = CLASSES,
        side: int = SIDE,
    ) -> ReadyClassifier:
        backbone = PatchBackbone(patch)
        preprocessing = Preprocessing(side, side, (0.0,) * 3, (1.0,) * 3)
        classifier = Classifier(backbone, LitHead(backbone.info, len(class_names)), class_names, preprocessing).eval()
        return ReadyClassifier(classifier, model_file, "fp32", batch_size, 0)

    return make


def lit_image(pixels: int = 16) -> np.ndarray:
    """Return a dark image uint8 S,S,3 with a number of pixels of the corner lit, in row-major order."""
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    for i in range(pixels):
        image[i // 4, i % 4, 0] = 255
    return image


def as_pixels(*images: np.ndarray) -> Tensor:
    """Return uint8 B,3,S,S."""
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int | None, list[int]]]:
    """The progress bars shown: description, total, and the numbers of units they were advanced by."""
    shown: list[tuple[str, int | None, list[int]]] = []

    @contextmanager
    def display(description: str, total: int | None, unit: str) -> Iterator[Any]:
        advanced: list[int] = []
        shown.append((description, total, advanced))
        yield SimpleNamespace(advance=lambda n=1, text="": advanced.append(n))

    monkeypatch.setattr(progress, "display", display)
    return shown


@pytest.fixture
def lamps(tmp_path: Path) -> Path:
    """A folder with 6 lit, 4 half-lit (labeled lit: 8 of 16 pixels and one more) and 4 dark images for the test."""
    root = tmp_path / "lamps"
    for split in ("train", "test"):
        for i in range(10):
            _save(root / split / "lit" / f"{i}.png", lit_image(16 if i < 6 else 9))
        for i in range(4):
            _save(root / split / "dark" / f"{i}.png", lit_image(0))
        if split == "train":
            _save(root / split / "unseen" / "0.png", lit_image(0))
    return root


def _save(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


@pytest.fixture
def run_of(
    lamps: Path, tmp_path: Path, ready: Callable[..., ReadyClassifier], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Path]:
    """Function that makes a run on the lamps whose model file "loads" as the classifier of a patch."""
    made: dict[Path, ReadyClassifier] = {}
    monkeypatch.setattr(dataset, "load", lambda model_file, inference: made[model_file])

    def make(name: str = "corner", **more: Any) -> Path:
        run = tmp_path / name
        run.mkdir()
        (run / "config.toml").write_text(
            f"recipe = 'scratch'\n[dataset]\nname = 'folder'\ndata = '{lamps}'\n[train]\nseed = 0\n"
        )
        model_file = run / "model.safetensors"
        save(model_file, {}, {"format": 1})
        made[model_file] = ready(model_file=model_file, **more)
        return model_file

    return make


@pytest.fixture
def lamp() -> Callable[..., Tensor]:
    """Function that makes images uint8 B,3,S,S with a number of pixels of the corner lit."""
    return lambda *counts: as_pixels(*(lit_image(count) for count in counts))


@pytest.fixture
def named(registry: Registry) -> Callable[..., NamedExplainer]:
    """Function that builds one of this file's explainers."""
    return lambda name, **settings: make_explainer(name, settings, registry)
