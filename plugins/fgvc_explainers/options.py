"""Options of the built-in explainers; free of torch, so that `fgvc show explainer gradcam` is quick."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fgvc_cli import option


@dataclass(frozen=True)
class ActivationOptions:
    """Options of `gradcam`, `gradcam++` and `layercam`."""

    map: int | None = option(
        None,
        "which of the backbone's feature maps, counted from 0, shallow first; none: where the score is read",
        minimum=0,
    )
    least_side: int = option(
        6,
        "map=none: if the map there has fewer points a side, as on small images, the deepest one that has so many; 1: "
        "never another",
        minimum=1,
    )


@dataclass(frozen=True)
class SlidingWindowOptions:
    """Options of `sliding_window`.

    Raises:
        ValueError: the patches would leave gaps.
    """

    window: float = option(0.2, "side of the patch, as a share of the image's side", minimum=0.001, maximum=1.0)
    stride: float = option(
        0.1, "distance between patches, as a share of the image's side; half of it costs 4 times", minimum=0.001
    )
    fill: Literal["mean", "gray"] = option("mean", "what covers: the image's own mean color, or mid gray")
    passes: int = option(64, "covered images in a forward pass; what bounds the memory", minimum=1)

    def __post_init__(self) -> None:
        if self.stride > self.window:
            raise ValueError(
                f"stride={self.stride} is larger than window={self.window}: some pixels would be left out."
            )


@dataclass(frozen=True)
class RandomOptions:
    """Options of `random`."""

    seed: int = option(0, "another seed draws other maps", minimum=0, maximum=2**32 - 1)
    by: Literal["image", "position"] = option(
        "image", "what a map is drawn anew for: each image's content, or each place in the batch"
    )
    grid: int = option(0, "cells a side, drawn and then enlarged as a feature map is; 0: every pixel alone", minimum=0)
