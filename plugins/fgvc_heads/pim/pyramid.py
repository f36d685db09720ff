"""PIM's feature pyramid: all maps at one width, deep ones added to shallow ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fgvc_cli.contracts import MapInfo


class FeaturePyramid(nn.Module):
    """Turn feature maps B,C,H,W into points B,N,F of one width F (arXiv 2202.03822).

    Each map is projected to F channels point by point; then, from deep to shallow, the deeper map is upsampled to the
    shallower one's grid and added to it.

    Args:
        maps: its input maps, shallow to deep.
        width: F, channels of the pyramid.
        upsampling: "bilinear" between grids, or a learned map over "tokens".
    """

    def __init__(self, maps: Sequence[MapInfo], width: int, upsampling: Literal["bilinear", "tokens"]) -> None:
        super().__init__()
        self.projections = nn.ModuleList(
            nn.Sequential(nn.Linear(m.channels, m.channels), nn.ReLU(inplace=True), nn.Linear(m.channels, width))
            for m in maps
        )
        self.maps = maps
        self.upsamplers = self._upsamplers(upsampling)

    def upsample_as_saved(self, state: Mapping[str, Any], prefix: str, *_: Any) -> None:
        """Upsample bilinearly if a saved state has this pyramid, but no learned map between its grids.

        Runs of earlier versions were built so on PiT, MViTv2, CoaT, CrossViT, Twins, EfficientViM and Swin V2 CR, which
        they took for convolutional.
        """
        learned = {f"{prefix}upsamplers.{name}" for name in self.upsamplers.state_dict()}
        if f"{prefix}projections.0.0.weight" in state and learned and learned.isdisjoint(state):
            self.upsamplers = self._upsamplers("bilinear")

    def _upsamplers(self, upsampling: Literal["bilinear", "tokens"]) -> nn.ModuleList:
        return nn.ModuleList(_upsampler(deep, shallow, upsampling) for shallow, deep in pairwise(self.maps))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return the points B,N,F of each map, shallow first."""
        points = [
            cast(Tensor, project(feature_map.flatten(2).transpose(1, 2)))
            for project, feature_map in zip(self.projections, maps, strict=True)
        ]
        for level in range(len(points) - 2, -1, -1):
            points[level] = points[level] + self._upsampled(points[level + 1], level, maps)
        return points

    def _upsampled(self, points: Tensor, level: int, maps: Sequence[Tensor]) -> Tensor:
        upsample = self.upsamplers[level]
        if isinstance(upsample, BilinearUpsampling):  # between the grids of these images, which may be smaller
            return cast(Tensor, upsample(points, maps[level + 1].shape[2:], maps[level].shape[2:]))
        return cast(Tensor, upsample(points))


class BilinearUpsampling(nn.Module):
    """Upsample points of a deep map, B,N_deep,F, to a shallow map's grid, B,N_shallow,F.

    The target is the shallow grid's exact size: a factor of 2 would miss odd grids.
    """

    def forward(self, points: Tensor, deep: torch.Size, shallow: torch.Size) -> Tensor:
        """Return the points on the shallow grid; `deep` and `shallow` are (H, W) of the maps."""
        deep_map = points.unflatten(1, deep).permute(0, 3, 1, 2)  # (B, F, H, W), channels-last in memory
        shallow_map = F.interpolate(deep_map, shallow, mode="bilinear", align_corners=False)
        return shallow_map.flatten(2).transpose(1, 2)


class TokenUpsampling(nn.Module):
    """Map points of a deep map, B,N_deep,F, to B,N_shallow,F by a learned linear map over the points.

    Args:
        deep: N_deep.
        shallow: N_shallow.
    """

    def __init__(self, deep: int, shallow: int) -> None:
        super().__init__()
        self.mix = nn.Conv1d(deep, shallow, kernel_size=1)

    def forward(self, points: Tensor) -> Tensor:
        """Return the mixed points; the 1x1 convolution is computed as a matrix product, which is faster."""
        weight, bias = self.mix.weight.squeeze(2), self.mix.bias
        assert bias is not None
        return torch.baddbmm(bias.unsqueeze(1), weight.expand(points.shape[0], -1, -1), points)


def _upsampler(deep: MapInfo, shallow: MapInfo, upsampling: Literal["bilinear", "tokens"]) -> nn.Module:
    """Build the upsampler between two maps; maps of equal size (all of ViT's) need none."""
    if deep.grid == shallow.grid or (upsampling == "tokens" and deep.points == shallow.points):
        return nn.Identity()
    if upsampling == "bilinear":
        return BilinearUpsampling()
    return TokenUpsampling(deep.points, shallow.points)
