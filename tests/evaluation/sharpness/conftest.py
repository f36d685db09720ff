"""A classifier of a few numbers, and images for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fgvc_cli.contracts import Classifier
from fgvc_cli.scoring.model import ReadyClassifier

Batches = list[tuple[Tensor, Tensor]]


@pytest.fixture
def ready(color_classifier: Classifier) -> ReadyClassifier:
    """Tells colors apart by ten times their mean, each channel's strength being a parameter."""
    return ReadyClassifier(color_classifier.eval(), Path("runs/colors/model.safetensors"), "fp32", 4, 0)


@pytest.fixture
def colored() -> Callable[..., Batches]:
    """A function that makes batches of noisy images."""

    def make(images: int = 6, batch_size: int = 4) -> Batches:
        generator = torch.Generator().manual_seed(7)
        pixels = torch.randint(0, 256, (images, 3, 4, 4), generator=generator, dtype=torch.uint8)
        labels = torch.arange(images) % 3
        return list(zip(pixels.split(batch_size), labels.split(batch_size), strict=True))

    return make


class Bar:
    """Counts, and does something at a certain stage."""

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
