"""Options of PMG. This module must not import torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fgvc_cli import option


@dataclass(frozen=True)
class PmgOptions:
    """Options of PMG (Du et al. 2020, arXiv 2003.03836). Defaults are those of the paper.

    Raises:
        ValueError: `patches` does not have three numbers.
    """

    patches: tuple[int, ...] = option(
        (8, 4, 2), "patches per side of the jigsaw for each stage, shallow to deep; 1: no jigsaw", minimum=1
    )
    stage_width: int = option(512, "channels between a stage's 1x1 and its 3x3 convolution", minimum=1)
    stage_channels: int = option(1024, "channels of a stage's map and vector", minimum=1)
    hidden_width: int = option(512, "hidden width of each of the four classifiers", minimum=1)
    concat_weight: float = option(
        2.0, "weight of the cross entropy of the concatenation; each stage has weight 1", minimum=0
    )
    combined: bool = option(True, "predict with the mean of all four classifiers; false: with the concatenation only")
    missing_grad: Literal["zero", "skip"] = option(
        "zero",
        "parameters without a gradient in an update: zero applies momentum and weight decay, as in the PyTorch version "
        "of the paper; skip leaves them unchanged",
    )

    def __post_init__(self) -> None:
        if len(self.patches) != 3:
            raise ValueError(f"patches={list(self.patches)}: give three numbers, shallow to deep, such as [8, 4, 2]")
