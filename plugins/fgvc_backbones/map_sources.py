"""X"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from timm.models.efficientnet import EfficientNet
from timm.models.resnet import ResNet
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from fgvc_cli import UsageError

MAPS_OFFERED = 4
"""At most; a model with more stages or blocks offers its last four."""

TimmModel: TypeAlias = Any
"""A `torch.nn.Module` with timm's methods, which timm does not declare."""

Run = Callable[[TimmModel, Tensor, Sequence[int], bool], tuple[list[Tensor], Tensor | None]]


@dataclass(frozen=True)
class MapSource:
    """How the maps that a backbone offers are computed.

    Attributes:
        modules: for each map, shallow to deep, the name of the module whose output it is ("" if unknown).
        strides: for each map, pixels of the image to a point, nominally (0 if unknown).
        run: called with the model, images B,3,H,W, ascending indices of the maps wanted and whether to go on to
            the final features; returns the maps B,C,H,W and the final features (or None).
    """

    modules: tuple[str, ...]
    strides: tuple[int, ...]
    run: Run


def count_maps(outline: TimmModel, image_size: int) -> int:
    """Return how many intermediate maps a timm model (on the meta device) has."""
    images = torch.empty(1, 3, image_size, image_size, device="meta")
    with torch.no_grad():
        return len(outline.forward_intermediates(images, intermediates_only=True))


def stages(model: TimmModel, count: int) -> MapSource:
    """Return the source of the last four of a timm model's `count` intermediate maps.

    Final norms are not applied to them. If the final features are not wanted, nothing past the deepest map is run.
    """
    first = max(0, count - MAPS_OFFERED)
    known = list(getattr(model, "feature_info", []))
    known = known[first:] if len(known) == count else [{}] * (count - first)

    def run(
        model: TimmModel, images: Tensor, indices: Sequence[int], final: bool
    ) -> tuple[list[Tensor], Tensor | None]:
        wanted = [first + index for index in indices]
        if not final:
            maps = model.forward_intermediates(images, indices=wanted, stop_early=True, intermediates_only=True)
            return maps, None
        features, maps = model.forward_intermediates(images, indices=wanted)
        return maps, features

    return MapSource(
        tuple(info.get("module", "") for info in known), tuple(int(info.get("reduction", 0)) for info in known), run
    )


def published_maps(model: TimmModel, count: int, name: str) -> MapSource:
    """Return the source of the published maps of a model that has `count` intermediate maps.

    Raises:
        UsageError: the published code has no such architecture.
    """
    if isinstance(model, SwinTransformer):
        return swin_after_merging(model)
    if isinstance(model, EfficientNet):
        return efficientnet_blocks(model)
    if isinstance(model, VisionTransformer):
        return vit_with_prefix(model)
    if isinstance(model, ResNet):
        return stages(model, count)
    raise UsageError(
        f"backbone.maps=published: the published code knows ResNet, EfficientNet, ViT and Swin; {name} is none. "
        "Use maps=stages."
    )


def swin_after_merging(model: TimmModel) -> MapSource:
    """Return Swin's maps after patch merging, and the last stage's.

    timm merges at the start of a stage where the original merges at the end of the one before: the same maps.
    """
    last = len(model.layers) - 1

    def run(
        model: TimmModel, images: Tensor, indices: Sequence[int], final: bool
    ) -> tuple[list[Tensor], Tensor | None]:
        maps = []
        tokens = model.patch_embed(images)  # (B, H, W, C)
        for number, stage in enumerate(model.layers):
            tokens = stage.downsample(tokens)
            if number - 1 in indices:
                maps.append(_channels_first(tokens))
            if not final and number - 1 == indices[-1]:
                return maps, None
            tokens = stage.blocks(tokens)
        if last in indices:
            maps.append(_channels_first(tokens))
        return maps, model.norm(tokens) if final else None

    strides = [info["reduction"] for info in model.feature_info]
    modules = [f"layers.{number}.downsample" for number in range(1, last + 1)]
    return MapSource((*modules, f"layers.{last}.blocks"), (*strides[1:], strides[-1]), run)


def efficientnet_blocks(model: TimmModel) -> MapSource:
    """Return the maps of EfficientNet's last four block stages, whether or not the stride grows between them."""
    count = len(model.blocks)
    first = max(0, count - MAPS_OFFERED)

    def run(
        model: TimmModel, images: Tensor, indices: Sequence[int], final: bool
    ) -> tuple[list[Tensor], Tensor | None]:
        wanted = [first + index + 1 for index in indices]  # 0 is the stem
        if not final:
            maps = model.forward_intermediates(
                images, indices=wanted, stop_early=True, intermediates_only=True, extra_blocks=True
            )
            return maps, None
        features, maps = model.forward_intermediates(images, indices=wanted, extra_blocks=True)
        return maps, features

    strides = {info["stage"]: info["reduction"] for info in model.feature_info}  # by the last block of that stride
    reached = [next(strides[end] for end in sorted(strides) if end >= number + 1) for number in range(first, count)]
    return MapSource(tuple(f"blocks.{number}" for number in range(first, count)), tuple(reached), run)


def vit_with_prefix(model: TimmModel) -> MapSource:
    """Return the tokens of a ViT's last four blocks as B,C,1,N, class token (and other prefix tokens) first."""
    count = len(model.blocks)
    first = max(0, count - MAPS_OFFERED)

    def run(
        model: TimmModel, images: Tensor, indices: Sequence[int], final: bool
    ) -> tuple[list[Tensor], Tensor | None]:
        wanted = [first + index for index in indices]
        if final:
            features, tokens = model.forward_intermediates(
                images, indices=wanted, output_fmt="NLC", return_prefix_tokens=True
            )
        else:
            features = None
            tokens = model.forward_intermediates(
                images,
                indices=wanted,
                output_fmt="NLC",
                return_prefix_tokens=True,
                stop_early=True,
                intermediates_only=True,
            )
        return [_as_row(block) for block in tokens], features

    stride = model.feature_info[-1]["reduction"]
    return MapSource(
        tuple(f"blocks.{number}" for number in range(first, count)), tuple(stride for _ in range(first, count)), run
    )


def _channels_first(tokens: Tensor) -> Tensor:
    return tokens.permute(0, 3, 1, 2).contiguous()  # (B, H, W, C) -> (B, C, H, W)


def _as_row(block: Tensor | tuple[Tensor, Tensor]) -> Tensor:
    """Join a block's patch tokens and prefix tokens, given as timm returns them, to B,C,1,N."""
    tokens = block if isinstance(block, Tensor) else torch.cat((block[1], block[0]), dim=1)
    return tokens.transpose(1, 2).unsqueeze(2).contiguous()
