"""Where PIM looks: the points that its selectors kept."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fgvc_heads.pim.output import PimOutput


def kept_points(output: PimOutput, grids: Sequence[tuple[int, int]], size: tuple[int, int]) -> Tensor:
    """Return maps B,H,W (float32) in [0, 1]: the kept points of all maps, each as strong as its confidence.

    Each map's are put on its grid, 0 elsewhere, and enlarged bilinearly to the image; the sum over the maps is divided
    by its largest value.

    Args:
        output: of a forward pass.
        grids: (rows, columns) of each map, shallow first.
        size: (H, W) of the images.
    """
    total = output.scores.new_zeros((len(output.scores), *size), dtype=torch.float32)
    for kept, confidences, grid in zip(output.kept, output.confidences, grids, strict=True):
        points = total.new_zeros((len(kept), grid[0] * grid[1])).scatter_(1, kept, confidences.float())
        total += F.interpolate(points.view(-1, 1, *grid), size, mode="bilinear", align_corners=False).squeeze(1)
    return total / total.amax(dim=(1, 2), keepdim=True)  # a confidence is 1/K at least: never 0
