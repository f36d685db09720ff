"""Options of the demo dataset."""

from __future__ import annotations

from dataclasses import dataclass

from fgvc_cli import option


@dataclass(frozen=True)
class DemoOptions:
    """How many images are drawn, and how large."""

    train: int = option(64, "training images of each class", minimum=1)
    val: int = option(16, "validation images of each class", minimum=1)
    test: int = option(25, "test images of each class", minimum=1)
    size: int = option(128, "side of the images in pixels", minimum=32, maximum=1024)
    seed: int = option(0, "what is drawn; it does not change with the seed of the training", minimum=0)
