"""PIM's feature pyramid: every map at one width, the deep ones added to the shallow ones."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fgvc_cli.contracts import MapInfo


class FeaturePyramid(nn.Module):
    """Feature maps B,C,H,W to points B,N,F of one width F (arXiv 2202.03822).

    Each map is projected to F channels point by point; then, from deep to shallow, the deeper map is brought to the
    shallower one's grid and added to it.

    Args:
        maps: the maps it will be given, shallow to deep.
        width: F, the channels of the pyramid.
        upsampling: "bilinear" between grids, or a learned map over "tokens".
    """

    def __init__(self, maps: Sequence[MapInfo], width: int, upsampling: Literal["bilinear", "tokens"]) -> None:
        super().__init__()
        self.projections = nn.ModuleList(_projection(info.channels, width) for info in maps)
        self.upsamplers = nn.ModuleList(_upsampler(deep, shallow, upsampling) for shallow, deep in pairwise(maps))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return the points B,N,F of each map, shallow first."""
        points = [
            cast(Tensor, project(feature_map.flatten(2).transpose(1, 2)))
            for project, feature_map in zip(self.projections, maps, strict=True)
        ]
        for level in range(len(points) - 2, -1, -1):
            points[level] = points[level] + self.upsamplers[level](points[level + 1])
        return points


class BilinearUpsampling(nn.Module):
    """Points of a deep map, B,N_deep,F, to a shallow map's grid, B,N_shallow,F, by bilinear interpolation.

    It goes to the shallow grid's exact size: twice the deep one would miss an odd grid.

    Args:
        deep: the deep map's (H, W).
        shallow: the shallow map's (H, W).
    """

    def __init__(self, deep: tuple[int, int], shallow: tuple[int, int]) -> None:
        super().__init__()
        self.deep, self.shallow = deep, shallow

    def forward(self, points: Tensor) -> Tensor:
        """Return the points on the shallow grid."""
        deep_map = points.unflatten(1, self.deep).permute(0, 3, 1, 2)  # B,F,H,W, channels-last in memory
        shallow_map = F.interpolate(deep_map, self.shallow, mode="bilinear", align_corners=False)
        return shallow_map.flatten(2).transpose(1, 2)


class TokenUpsampling(nn.Module):
    """Points of a deep map, B,N_deep,F, to B,N_shallow,F by a learned linear map over the points.

    Args:
        deep: N_deep.
        shallow: N_shallow.
    """

    def __init__(self, deep: int, shallow: int) -> None:
        super().__init__()
        self.mix = nn.Conv1d(deep, shallow, kernel_size=1)

    def forward(self, points: Tensor) -> Tensor:
        """Return the mixed points: the convolution as the matrix product that it is, which is quicker."""
        weight, bias = self.mix.weight.squeeze(2), self.mix.bias
        assert bias is not None
        return torch.baddbmm(bias.unsqueeze(1), weight.expand(len(points), -1, -1), points)


def _projection(channels: int, width: int) -> nn.Sequential:
    """Two layers that act on each point alone: C -> C, ReLU, C -> F."""
    return nn.Sequential(nn.Linear(channels, channels), nn.ReLU(inplace=True), nn.Linear(channels, width))


def _upsampler(deep: MapInfo, shallow: MapInfo, upsampling: Literal["bilinear", "tokens"]) -> nn.Module:
    """Bring a deep map to a shallow one's grid; maps of one size (all of ViT's) need nothing."""
    if deep.grid == shallow.grid or (upsampling == "tokens" and deep.points == shallow.points):
        return nn.Identity()
    if upsampling == "bilinear":
        return BilinearUpsampling(deep.grid, shallow.grid)
    return TokenUpsampling(deep.points, shallow.points)
