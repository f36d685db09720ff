"""Where a model's feature maps come from: its stages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

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
