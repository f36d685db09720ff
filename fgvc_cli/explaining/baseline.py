"""The baseline that every explainer has to beat: a map that knows nothing of the classifier."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from fgvc_cli.contracts import Classifier, Explainer
from fgvc_cli.explaining.explainers import KIND, NamedExplainer, make_explainer
from fgvc_cli.registry import Registry

NAME = "random"
"""What the baseline is called, and the name by which a plugin may bring another one."""

CELLS = 7
"""Cells a side of the host's own random map."""


class SmoothNoise(Explainer):
    """Numbers drawn evenly for a few cells, enlarged to the image: as coarse as the maps that it is set beside.

    They follow from the image alone, so that an image gets the same map in any batch.
    """

    def __init__(self, options: object = None) -> None:
        self.options = options

    @torch.no_grad()
    def explain(self, classifier: Classifier, images: Tensor, targets: Tensor) -> Tensor:  # noqa: ARG002
        """Return maps B,S,S in [0, 1] of images B,3,S,S."""
        values = (images.float() * 64).round().long().flatten(1)
        places = torch.arange(1, values.shape[1] + 1, device=images.device)
        keys = (values * _scrambled(places)).sum(dim=1)
        cells = torch.arange(CELLS * CELLS, device=images.device)
        drawn = (_scrambled(keys[:, None] + _scrambled(cells)) & 0xFFFFFF).float() / 0xFFFFFF
        grid = drawn.view(-1, 1, CELLS, CELLS)
        maps = F.interpolate(grid, images.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
        low, high = maps.amin(dim=(1, 2), keepdim=True), maps.amax(dim=(1, 2), keepdim=True)
        return (maps - low) / (high - low).clamp(min=torch.finfo(maps.dtype).eps)


def with_baseline(
    explainers: Sequence[NamedExplainer], registry: Registry
) -> tuple[list[NamedExplainer], NamedExplainer]:
    """Add the random map to explainers where it is missing, last; return all, and it."""
    asked = next((explainer for explainer in explainers if explainer.name == NAME), None)
    if asked is not None:
        return list(explainers), asked
    registered = any(component.name == NAME for component in registry.components(KIND))
    baseline = make_explainer(NAME, {}, registry) if registered else NamedExplainer(NAME, SmoothNoise(), {})
    return [*explainers, baseline], baseline


def _scrambled(numbers: Tensor) -> Tensor:
    """Scramble int64 numbers: multiply (wrapping around) and fold the upper bits down, twice."""
    for factor in (0x2545F4914F6CDD1D, 0x1B873593CC9E2D51):
        numbers = numbers * factor
        numbers = numbers ^ ((numbers >> 29) & 0x7FFFFFFFF)
    return numbers
