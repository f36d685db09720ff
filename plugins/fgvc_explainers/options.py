"""Options of the built-in explainers; free of torch, so that `fgvc show explainer gradcam` is quick."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fgvc_cli import option


@dataclass(frozen=True)
class ActivationOptions:
    """Options of `gradcam`, `gradcam++`, `layercam` and `eigencam`.

    Raises:
        ValueError: `map` and `layer` are both given.
    """

    map: int | None = option(
        None, "index of the backbone's feature map, 0 is the shallowest; none: the layer of the score", minimum=0
    )
    least_side: int = option(
        6,
        "for map=none: if that layer has fewer points per side, the deepest map that has as many, else the finest map; "
        "1: always that layer",
        minimum=1,
    )
    layer: str = option("", "name of another module of the backbone, such as layers.3.blocks.1.norm1, instead of a map")

    def __post_init__(self) -> None:
        if self.layer and self.map is not None:
            raise ValueError(f"layer={self.layer} and map={self.map} exclude each other")


@dataclass(frozen=True)
class FinerCamOptions(ActivationOptions):
    """Options of `finer-cam`."""

    gamma: float = option(0.6, "weight of the other classes' scores; 0: Grad-CAM", minimum=0.0)
    references: int = option(3, "number of other classes, those with the nearest scores", minimum=1)


@dataclass(frozen=True)
class LeGradOptions:
    """Options of `legrad`."""

    layers: int = option(0, "number of last blocks to average; 0: all", minimum=0)
    passes: int = option(8, "images per pass, which bounds the memory", minimum=1)


@dataclass(frozen=True)
class SlidingWindowOptions:
    """Options of `sliding_window`.

    Raises:
        ValueError: `stride` is larger than `window`.
    """

    window: float = option(0.2, "side of the patch, as a fraction of the image side", minimum=0.001, maximum=1.0)
    stride: float = option(
        0.1,
        "distance between patches, as a fraction of the image side; half of it takes 4 times as long",
        minimum=0.001,
    )
    fill: Literal["mean", "gray"] = option("mean", "fill color: the mean color of the image, or mid gray")
    passes: int = option(64, "masked images per forward pass, which bounds the memory", minimum=1, maximum=1_000_000)

    def __post_init__(self) -> None:
        if self.stride > self.window:
            raise ValueError(
                f"stride={self.stride} is larger than window={self.window}, so some pixels would never be masked"
            )


@dataclass(frozen=True)
class RandomOptions:
    """Options of `random`."""

    seed: int = option(0, "seed of the maps", minimum=0, maximum=2**32 - 1)
    by: Literal["image", "position"] = option("image", "one map per image content, or per position in the batch")
    grid: int = option(
        0, "cells per side, upsampled to the image as feature maps are; 0: a value per pixel", minimum=0, maximum=8192
    )
