"""Where the feature maps of a timm model come from: its stages, or the maps that the public code of PIM reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from timm.models.efficientnet import EfficientNet
from timm.models.resnet import ResNet
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from fgvc_cli import UsageError

MAPS_OFFERED = 4
"""Maximum number of maps; a model with more stages or blocks offers its last four."""

TimmModel: TypeAlias = Any
"""A `torch.nn.Module` with timm's methods, which timm does not declare."""

MapsAndFinal: TypeAlias = tuple[list[Tensor], Tensor | None]
Run = Callable[[TimmModel, Tensor, Sequence[int], bool], MapsAndFinal]


@dataclass(frozen=True)
class MapSource:
    """How to compute the maps that a backbone offers.

    Attributes:
        modules: for each map, shallow to deep, the name of the module whose output it is ("" if unknown).
        strides: for each map, its nominal stride in pixels (0 if unknown).
        run: called with the model, images B,3,H,W, ascending indices of the requested maps, and whether to compute the
            final features; returns the maps B,C,H,W and the final features (or None).
    """

    modules: tuple[str, ...]
    strides: tuple[int, ...]
    run: Run


def map_source(outline: TimmModel, image_size: int, maps: Literal["stages", "published"], name: str) -> MapSource:
    """Return the source of a timm model's stages, or of the maps that the public code of PIM reads (arXiv 2202.03822).

    None has a final norm. The published maps are, for Swin, the outputs of its three patch mergings and of its last
    stage, strides 8, 16, 32, 32; for EfficientNet its last four block stages, strides 16, 16, 32, 32; for ViT its last
    four blocks, class token included; for ResNet its stages.

    Args:
        outline: the model, on the meta device.
        image_size: side of the square images, pixels.
        maps: which maps.
        name: of the backbone, for messages.

    Raises:
        UsageError: the public code has no such architecture.
    """
    if maps == "published":
        if isinstance(outline, SwinTransformer):
            return swin_after_merging(outline)
        if isinstance(outline, EfficientNet):
            return efficientnet_blocks(outline)
        if isinstance(outline, VisionTransformer):
            return vit_with_prefix(outline)
        if not isinstance(outline, ResNet):
            raise UsageError(
                f"`backbone.maps=published`: the published maps exist for ResNet, EfficientNet, ViT and Swin, not for "
                f"{name}; use `backbone.maps=stages`"
            )
    return stages(outline, image_size)


def stages(model: TimmModel, image_size: int) -> MapSource:
    """Return the source of the last four intermediate maps of a timm model on the meta device."""
    images = torch.empty(1, 3, image_size, image_size, device="meta")
    with torch.no_grad():
        count = len(model.forward_intermediates(images, intermediates_only=True))
    first = max(0, count - MAPS_OFFERED)
    known = list(getattr(model, "feature_info", []))
    known = known[first:] if len(known) == count else [{}] * (count - first)

    def run(model: TimmModel, images: Tensor, indices: Sequence[int], final: bool) -> MapsAndFinal:
        return _intermediates(model, images, [first + index for index in indices], final)

    return MapSource(
        tuple(info.get("module", "") for info in known), tuple(int(info.get("reduction", 0)) for info in known), run
    )


def swin_after_merging(model: TimmModel) -> MapSource:
    """Return Swin's maps after patch merging, and the last stage's.

    timm merges at the start of a stage, the original at the end of the previous one: the maps are the same.
    """
    last = len(model.layers) - 1

    def run(model: TimmModel, images: Tensor, indices: Sequence[int], final: bool) -> MapsAndFinal:
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
    """Return the maps of EfficientNet's last four block stages, including consecutive ones of equal stride."""
    count = len(model.blocks)
    first = max(0, count - MAPS_OFFERED)

    def run(model: TimmModel, images: Tensor, indices: Sequence[int], final: bool) -> MapsAndFinal:
        wanted = [first + index + 1 for index in indices]  # 0 is the stem
        return _intermediates(model, images, wanted, final, extra_blocks=True)

    strides = {info["stage"]: info["reduction"] for info in model.feature_info}  # by the last block of that stride
    reached = [next(strides[end] for end in sorted(strides) if end >= number + 1) for number in range(first, count)]
    return MapSource(tuple(f"blocks.{number}" for number in range(first, count)), tuple(reached), run)


def vit_with_prefix(model: TimmModel) -> MapSource:
    """Return the tokens of a ViT's last four blocks as B,C,1,N, class token and other prefix tokens first."""
    count = len(model.blocks)
    first = max(0, count - MAPS_OFFERED)

    def run(model: TimmModel, images: Tensor, indices: Sequence[int], final: bool) -> MapsAndFinal:
        wanted = [first + index for index in indices]
        blocks, features = _intermediates(model, images, wanted, final, output_fmt="NLC", return_prefix_tokens=True)
        return [_as_row(block) for block in blocks], features

    stride = model.feature_info[-1]["reduction"]
    return MapSource(
        tuple(f"blocks.{number}" for number in range(first, count)), tuple(stride for _ in range(first, count)), run
    )


def _intermediates(
    model: TimmModel, images: Tensor, indices: list[int], final: bool, **options: Any
) -> tuple[list[Any], Tensor | None]:
    """Call timm's `forward_intermediates`, which stops after the deepest map unless the final features are needed."""
    if final:
        features, maps = model.forward_intermediates(images, indices=indices, **options)
        return maps, features
    options |= {"stop_early": True, "intermediates_only": True}
    return model.forward_intermediates(images, indices=indices, **options), None


def _channels_first(tokens: Tensor) -> Tensor:
    return tokens.permute(0, 3, 1, 2).contiguous()  # (B, H, W, C) -> (B, C, H, W)


def _as_row(block: Tensor | tuple[Tensor, Tensor]) -> Tensor:
    """Join a block's prefix tokens and patch tokens, as timm returns them, to B,C,1,N."""
    tokens = block if isinstance(block, Tensor) else torch.cat((block[1], block[0]), dim=1)
    return tokens.transpose(1, 2).unsqueeze(2).contiguous()
