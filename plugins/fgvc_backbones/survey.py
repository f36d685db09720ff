"""What a timm model does: where its feature maps come from, their shapes, and where saliency maps are taken."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from timm.models import group_parameters
from timm.models.efficientnet import EfficientNet
from timm.models.resnet import ResNet
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from fgvc_cli import FgvcError, UsageError
from fgvc_cli.contracts import Features, MapInfo, Reads

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
    options: dict[str, Any] = {}
    with torch.no_grad():
        try:
            count = len(model.forward_intermediates(images, intermediates_only=True))
        except RuntimeError as error:
            if "item()" not in str(error):
                raise
            options["output_fmt"] = "NLC"  # Gemma 4 reads its grid from values, which the meta device does not have
            count = len(model.forward_intermediates(images, intermediates_only=True, **options))
    first = max(0, count - MAPS_OFFERED)
    known = list(getattr(model, "feature_info", []))
    known = known[first:] if len(known) == count else [{}] * (count - first)

    def run(model: TimmModel, images: Tensor, indices: Sequence[int], final: bool) -> MapsAndFinal:
        maps, features = _intermediates(model, images, [first + index for index in indices], final, **options)
        return [_square(tokens) if options else tokens for tokens in maps], features

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
        features, maps = model.forward_intermediates(images, indices=indices, stop_early=False, **options)
        return maps, features
    options |= {"stop_early": True, "intermediates_only": True}
    return model.forward_intermediates(images, indices=indices, **options), None


def _channels_first(tokens: Tensor) -> Tensor:
    return tokens.permute(0, 3, 1, 2).contiguous()  # (B, H, W, C) -> (B, C, H, W)


def _square(tokens: Tensor) -> Tensor:
    side = math.isqrt(tokens.shape[1])
    return tokens.transpose(1, 2).unflatten(2, (side, side)).contiguous()  # (B, N, C) -> (B, C, H, W)


def _as_row(block: Tensor | tuple[Tensor, Tensor]) -> Tensor:
    """Join a block's prefix tokens and patch tokens, as timm returns them, to B,C,1,N."""
    tokens = block if isinstance(block, Tensor) else torch.cat((block[1], block[0]), dim=1)
    return tokens.transpose(1, 2).unsqueeze(2).contiguous()


@dataclass(frozen=True)
class Survey:
    """Result of the inspection.

    Attributes:
        maps: channels, stride and grid of each map.
        embedding_width: D of the embedding.
        pooled: the module whose output B,C,H,W is the final feature map, if that is what the embedding is pooled from.
        architecture: "transformer" if the maps come from tokens.
    """

    maps: tuple[MapInfo, ...]
    embedding_width: int
    pooled: str | None
    architecture: Literal["convolutional", "transformer"]


def read(model: TimmModel, source: MapSource, images: Tensor, reads: Reads) -> Features:
    """Compute the maps and the embedding in `reads`, in one pass that stops as early as possible."""
    if reads.maps:
        maps, final = source.run(model, images, reads.maps, reads.embedding)
    else:
        maps, final = [], model.forward_features(images) if reads.embedding else None
    embedding = None if final is None else model.forward_head(final, pre_logits=True)
    return Features(dict(zip(reads.maps, maps, strict=True)), embedding)


def survey(outline: TimmModel, source: MapSource, image_size: int) -> Survey:
    """Run the model once on the meta device.

    Args:
        outline: the model, on the meta device, in evaluation mode.
        source: of its maps.
        image_size: side of the square images, pixels.

    Raises:
        FgvcError: it has no embedding B,D or its maps are not B,C,H,W.
    """
    images = torch.empty(1, 3, image_size, image_size, device="meta")
    indices = range(len(source.modules))
    with torch.no_grad():
        (maps, final), outputs = _with_outputs(outline, lambda: source.run(outline, images, indices, True))
        plain, plain_outputs = _with_outputs(outline, lambda: outline.forward_features(images))
        embedding = outline.forward_head(final, pre_logits=True)
    if embedding.ndim != 2 or any(m.ndim != 4 for m in maps):
        raise FgvcError(f"{type(outline).__name__}: its feature maps or its pooled features have an unexpected shape")
    pooled = [name for name, output in outputs.items() if output is final and plain_outputs.get(name) is plain]
    return Survey(
        tuple(_map_info(m, stride, image_size) for m, stride in zip(maps, source.strides, strict=True)),
        embedding.shape[1],
        pooled[-1] if pooled and isinstance(final, Tensor) and final.ndim == 4 else None,
        "transformer" if _has_tokens(outline, outputs.get(source.modules[-1]), maps[-1]) else "convolutional",
    )


def reached_parameters(outline: TimmModel, source: MapSource, image_size: int, reads: Reads) -> frozenset[str]:
    """Return the names of the parameters that get a gradient if only `reads` is used (on the meta device)."""
    images = torch.empty(1, 3, image_size, image_size, device="meta")
    with torch.enable_grad():  # the caller may be within torch.no_grad()
        features = read(outline, source, images, reads)
        tensors = [*features.maps.values(), *([] if features.embedding is None else [features.embedding])]
        if tensors:
            torch.stack([tensor.sum() for tensor in tensors]).sum().backward()
    return frozenset(name for name, parameter in outline.named_parameters() if parameter.grad is not None)


def runs(outline: TimmModel, source: MapSource, image_size: int, reads: Reads) -> bool:
    """Check whether a pruned model (on the meta device) still computes `reads`."""
    images = torch.empty(1, 3, image_size, image_size, device="meta")
    try:
        with torch.no_grad():
            read(outline, source, images, reads)
    except Exception:  # a model without one of its modules may raise anything
        return False
    return True


OF_THE_LAST_GROUP = 99999
"""Last number of an ordinal with which timm's matchers put a layer into the group before it."""


def layer_depths(model: TimmModel, coarse: bool) -> dict[str, int]:
    """Return the group of each parameter by name, 0 for the stem, from timm's matcher.

    Args:
        model: has a `group_matcher`.
        coarse: whether groups are stages; else blocks, where the matcher of the model knows them.
    """
    matcher = model.group_matcher(coarse=coarse)
    if isinstance(matcher, dict):  # timm would group layers without a match, such as the last norm, by themselves
        matcher = {**matcher, "others": [(r"", (OF_THE_LAST_GROUP,))]}
    else:
        ordinal = matcher

        def matcher(name: str) -> tuple[float, ...]:
            group = ordinal(name)
            return (group, OF_THE_LAST_GROUP) if group == math.inf else (group,)

    depths: dict[str, int] = group_parameters(model, matcher, reverse=True)
    return depths


def _with_outputs(model: TimmModel, call: Callable[[], Any]) -> tuple[Any, dict[str, Tensor]]:
    """Return a call's result, and the output of each module by name, in the order in which they finished."""
    outputs: dict[str, Tensor] = {}

    def recorder(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def record(module: nn.Module, inputs: Any, output: Any) -> None:  # noqa: ARG001
            if isinstance(output, Tensor):
                outputs.pop(name, None)
                outputs[name] = output

        return record

    handles = [module.register_forward_hook(recorder(name)) for name, module in model.named_modules() if name]
    try:
        return call(), outputs
    finally:
        for handle in handles:
            handle.remove()


def _map_info(feature_map: Tensor, stride: int, image_size: int) -> MapInfo:
    _, channels, height, width = feature_map.shape
    return MapInfo(channels, stride or round(image_size / height), (height, width))


TOKEN_NETWORKS = (
    "coat", "crossvit", "efficientvim", "gemma4_vit", "mvitv2", "pit", "swin_transformer_v2_cr", "tnt", "twins",
)  # fmt: skip
"""timm's modules of networks that compute with tokens although their stages return B,C,H,W or tuples."""


def _has_tokens(model: TimmModel, output: Tensor | None, deepest: Tensor) -> bool:
    """Check whether the deepest map 1,C,H,W comes from tokens: from an output 1,N,C, or 1,H,W,C with attention."""
    if type(model).__module__.rpartition(".")[2] in TOKEN_NETWORKS:
        return True
    if output is None or output is deepest:
        return False
    _, channels, height, width = deepest.shape
    if output.shape == (1, height, width, channels):  # convolutional networks may be channels-last, too
        return any("Attention" in type(module).__name__ for module in model.modules())
    return output.ndim == 3 and output.shape[2] == channels
