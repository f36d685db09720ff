"""What the host expects of a backbone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from fgvc_cli.contracts import (
    Backbone,
    BackboneInfo,
    CamLayer,
    Features,
    MapInfo,
    PretrainedWeights,
    Reads,
    WeightsReport,
)
from fgvc_cli.enforcement.attribution import Broken, Check, Record, described, expect_type


def built(backbone: Backbone, record: Record) -> None:
    """Check `info`."""
    info: Any = getattr(backbone, "info", None)
    _check_info(info, record.facts["image_size"])


def _check_info(info: Any, image_size: int) -> None:
    expect_type(info, BackboneInfo, "a BackboneInfo in the attribute `info`")
    if info.image_size != image_size:
        raise Broken(f"info.image_size={image_size}", described(info.image_size))
    if not isinstance(info.maps, tuple) or not all(isinstance(each, MapInfo) for each in info.maps):
        raise Broken("a tuple of MapInfo as info.maps", described(info.maps))
    if type(info.embedding_width) is not int or info.embedding_width < 1:
        raise Broken("a positive integer as info.embedding_width", described(info.embedding_width))
    for name in ("mean", "std"):
        values = getattr(info, name)
        if (
            not isinstance(values, tuple | list)
            or len(values) != 3
            or not all(isinstance(v, float | int) for v in values)
        ):
            raise Broken(f"three numbers as info.{name}", described(values))


def _forward(backbone: Backbone, result: Any, images: Tensor, reads: Reads) -> Features:
    expect_type(result, Features, "Features(maps, embedding)")
    expect_type(result.maps, Mapping, "maps as a dict by index")
    info, batch = backbone.info, len(images)
    for index in reads.maps:
        found, declared = result.maps.get(index), info.maps[index]
        grid = declared.grid if images.shape[-1] == info.image_size else None
        if (
            not isinstance(found, Tensor)
            or found.ndim != 4
            or found.shape[:2] != (batch, declared.channels)
            or (grid is not None and found.shape[2:] != grid)
        ):
            shape = ", ".join(map(str, (batch, declared.channels, *(grid or ("H", "W")))))
            raise Broken(f"map {index} of shape ({shape}), as info.maps says", described(found))
    if reads.embedding:
        found = result.embedding
        if not isinstance(found, Tensor) or found.shape != (batch, info.embedding_width):
            raise Broken(f"an embedding of shape {(batch, info.embedding_width)}, as info says", described(found))
    return result


def _info_at(backbone: Backbone, result: Any, image_size: int) -> Any:  # noqa: ARG001
    _check_info(result, image_size)
    return result


def _cam_layer(backbone: Backbone, result: Any, map_index: int | None) -> Any:  # noqa: ARG001
    expect_type(result, CamLayer, "a CamLayer")
    expect_type(result.module, nn.Module, "a module in CamLayer.module")
    return result


def _layer_depths(backbone: Backbone, result: Any, unit: str) -> Any:  # noqa: ARG001
    expect_type(result, Mapping, "a dict of depths by name of parameter")
    for name, _ in backbone.named_parameters():
        if type(result.get(name)) is not int or result[name] < 0:
            raise Broken(f"the depth of {name}, an integer from 0", described(result.get(name)))
    return result


def _pretrained(backbone: Backbone, result: Any, tag: str | None = None) -> Any:  # noqa: ARG001
    expect_type(result, (PretrainedWeights, type(None)), "PretrainedWeights or None")
    return result


def _fetch(backbone: Backbone, result: Any, weights: Any) -> Any:  # noqa: ARG001
    expect_type(result, Mapping, "a state dict")
    wrong = [name for name, value in result.items() if not isinstance(value, Tensor)]
    if wrong:
        raise Broken("a state dict of tensors", f"{described(result[wrong[0]])} as {wrong[0]}")
    return result


def _load_weights(backbone: Backbone, result: Any, state: Any) -> Any:  # noqa: ARG001
    expect_type(result, WeightsReport, "a WeightsReport")
    return result


def _any(backbone: Backbone, result: Any, *_: Any, **__: Any) -> Any:  # noqa: ARG001
    return result


CALLS: dict[str, Check] = {
    "forward": _forward,
    "prune": _any,
    "cam_layer": _cam_layer,
    "info_at": _info_at,
    "layer_depths": _layer_depths,
    "pretrained": _pretrained,
    "fetch": _fetch,
    "load_weights": _load_weights,
}
"""Checks by method."""
