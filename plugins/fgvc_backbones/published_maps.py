"""The maps that the public code of PIM reads (arXiv 2202.03822), where they are not the stages.

None carries a final norm. Swin: the outputs of its three patch mergings and of its last stage, strides 8, 16, 32, 32.
EfficientNet: its last four block stages, strides 16, 16, 32, 32. ViT: its last four blocks, class token included.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from timm.models.efficientnet import EfficientNet
from timm.models.resnet import ResNet
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from fgvc_backbones.map_sources import MAPS_OFFERED, MapSource, TimmModel, stages
from fgvc_cli import UsageError


def published(model: TimmModel, count: int, name: str) -> MapSource:
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
