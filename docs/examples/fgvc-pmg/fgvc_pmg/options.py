"""Options of PMG; free of torch, so that `fgvc show head pmg` is quick."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fgvc_cli import option


@dataclass(frozen=True)
class PmgOptions:
    """Options of PMG (Du et al. 2020, arXiv 2003.03836). Defaults are those of the paper.

    Raises:
        ValueError: there is not one number of patches for each of the three stages.
    """

    patches: tuple[int, ...] = option(
        (8, 4, 2), "patches a side that the image is cut into for each stage, shallow to deep; 1: the image", minimum=1
    )
    stage_width: int = option(512, "channels between a stage's 1x1 and its 3x3 convolution", minimum=1)
    stage_channels: int = option(1024, "channels of a stage's map, and of the vector pooled from it", minimum=1)
    hidden_width: int = option(512, "hidden width of each of the four classifiers", minimum=1)
    concat_weight: float = option(2.0, "weight of the concatenation's cross entropy; each stage's is 1", minimum=0)
    combined: bool = option(True, "predict with all four classifiers; false: with the concatenation's alone")
    missing_grad: Literal["zero", "skip"] = option(
        "zero",
        "what parameters do in an update whose loss does not reach them: coast on momentum and weight decay, as under "
        "the PyTorch of the paper, or skip it",
    )

    def __post_init__(self) -> None:
        if len(self.patches) != 3:
            raise ValueError(f"patches={list(self.patches)}: give three numbers, shallow to deep, such as [8, 4, 2].")
