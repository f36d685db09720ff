"""A classifier that tells red, green and blue images apart by their mean color, and images for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fgvc_cli.contracts import (
    Backbone,
    BackboneInfo,
    CamLayer,
    Classifier,
    Features,
    Head,
    Loss,
    Objective,
    Preprocessing,
    Reads,
    Split,
)
from fgvc_cli.scoring.model import ReadyClassifier
from fgvc_cli.scoring.scores import Scores

SIDE = 4
COLORS = ("blue", "green", "red")


class MeanColor(Backbone):
    """The embedding is the mean color."""

    def __init__(self) -> None:
        super().__init__()
        ones, zeros = (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)
        self.info = BackboneInfo("mean-color", "convolutional", SIDE, (), 3, zeros, ones)
        self.norm = nn.BatchNorm2d(3)

    def forward(self, images: Tensor, reads: Reads) -> Features:
        return Features((), self.norm(images).mean(dim=(2, 3)))

    def prune(self, reads: Reads) -> None:
        raise NotImplementedError

    def cam_layer(self, map_index: int | None) -> CamLayer:
        raise NotImplementedError


class StrongestChannel(Head):
    """Scores blue, green and red by ten times the mean of the channel."""

    def __init__(self, backbone: BackboneInfo, classes: int, options: Any = None) -> None:
        super().__init__(backbone, classes, options)
        self.frozen = nn.Dropout(0.5)

    def reads(self, part: str | None = None) -> Reads:
        return Reads((), True)

    def forward(self, features: Features, part: str | None = None) -> Tensor:
        return 10 * self.frozen(features.embedding).flip(1)

    def objectives(self, images: Tensor, targets: Tensor) -> Iterator[Objective]:
        yield Objective(images, lambda scores: Loss(nn.functional.cross_entropy(scores, targets), scores))


@dataclass(frozen=True)
class ImageBatch:
    pixels: Tensor
    labels: Tensor
    indices: Tensor


@dataclass
class ListLoader:
    """Batches made beforehand."""

    batches: list[ImageBatch]
    failures: dict[str, str] = field(default_factory=dict)

    def __iter__(self) -> Iterator[ImageBatch]:
        return iter(self.batches)


@pytest.fixture
def color_classifier() -> Classifier:
    backbone = MeanColor()
    head = StrongestChannel(backbone.info, 3)
    preprocessing = Preprocessing(SIDE, SIDE, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    return Classifier(backbone, head, COLORS, preprocessing)


@pytest.fixture
def painted() -> Any:
    """A function that makes a split, painted in given colors and labeled as told, and a loader of it."""

    def paint(colors: str, labels: str, batch_size: int = 2, unreadable: tuple[int, ...] = ()) -> Any:
        channel = {"r": 0, "g": 1, "b": 2}
        class_of = {"b": 0, "g": 1, "r": 2}
        images = np.zeros((len(colors), SIDE, SIDE, 3), np.uint8)
        for i, color in enumerate(colors):
            images[i, :, :, channel[color]] = 255
        targets = [class_of[label] for label in labels]
        split = Split("test", list(images), targets, [f"{i}.png" for i in range(len(colors))])
        readable = [i for i in range(len(colors)) if i not in unreadable]
        batches = [
            ImageBatch(
                torch.from_numpy(images[part]).permute(0, 3, 1, 2),
                torch.tensor([targets[i] for i in part]),
                torch.tensor(part),
            )
            for part in (readable[i : i + batch_size] for i in range(0, len(readable), batch_size))
        ]
        failures = {f"{i}.png": "truncated" for i in unreadable}
        return ListLoader(batches, failures), split

    return paint


@pytest.fixture
def made_scores() -> Any:
    """A function that makes `Scores` from rows of probabilities and labels."""

    def make(probabilities: Any, labels: list[int], **more: Any) -> Scores:
        rows = np.asarray(probabilities, np.float32)
        keys = [f"{i}.jpg" for i in range(len(labels))]
        return Scores(rows, np.asarray(labels, np.int64), keys, **{"loss": 1.0, **more})

    return make


@pytest.fixture
def ready(color_classifier: Classifier) -> ReadyClassifier:
    """The classifier of mean colors, with a trainable scale per channel."""
    return ReadyClassifier(color_classifier.eval(), Path("runs/colors/model.safetensors"), "fp32", 4, 0)


@pytest.fixture
def colored() -> Callable[..., list[tuple[Tensor, Tensor]]]:
    """Function that makes batches of noisy images."""

    def make(images: int = 6, batch_size: int = 4) -> list[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(7)
        pixels = torch.randint(0, 256, (images, 3, 4, 4), generator=generator, dtype=torch.uint8)
        labels = torch.arange(images) % 3
        return list(zip(pixels.split(batch_size), labels.split(batch_size), strict=True))

    return make


class Bar:
    """Counts progress, and calls a function at a stage."""

    def __init__(self, at: str = "", then: Callable[[], Any] | None = None) -> None:
        self.done, self.stages, self.at, self.then = 0, {}, at, then  # type: ignore[var-annotated]

    def advance(self, n: int = 1, text: str = "") -> None:
        self.done += n
        self.stages[text] = self.stages.get(text, 0) + n
        if self.then is not None and text == self.at:
            self.then()


@pytest.fixture
def bar() -> type[Bar]:
    return Bar
