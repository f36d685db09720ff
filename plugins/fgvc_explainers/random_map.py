"""Random saliency maps: the baseline to beat."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from fgvc_cli.contracts import Classifier, Explainer
from fgvc_explainers.options import RandomOptions
from fgvc_explainers.recording import at_image_size, to_unit_range

BITS = 24
"""Random bits per value, all that a float32 represents exactly."""


class RandomMap(Explainer):
    """Assign each pixel (or grid cell) a uniform random value in [0, 1).

    The values are a hash of the seed, the image's pixels and the position, so an image has the same map in any batch
    and on any device.

    Args:
        options: see `RandomOptions`.
    """

    class_specific = False

    def __init__(self, options: RandomOptions) -> None:
        self.options = options

    @torch.no_grad()
    def explain(self, classifier: Classifier, images: Tensor, targets: Tensor) -> Tensor:  # noqa: ARG002
        """Return maps B,S,S in [0, 1) of images B,3,S,S; with `grid` their maximum is 1."""
        height, width = images.shape[2:]
        grid = self.options.grid
        keys = _mixed(_mixed(self._keys(classifier, images)) + self.options.seed)
        positions = torch.arange(grid * grid or height * width, device=images.device)
        drawn = _mixed(keys.unsqueeze(1) + _mixed(positions))
        maps = _shifted(drawn, 64 - BITS).float() / 2**BITS
        if not grid:
            return maps.unflatten(1, (height, width))
        return to_unit_range(at_image_size(maps.unflatten(1, (grid, grid)), (height, width)))

    def _keys(self, classifier: Classifier, images: Tensor) -> Tensor:
        """Return a key (int64) per image or per position, B."""
        if self.options.by == "position":
            return torch.arange(len(images), device=images.device)
        scale, shift = cast(Tensor, classifier.scale), cast(Tensor, classifier.shift)
        pixels = ((images.float() - shift) / scale).round().long().flatten(1)  # undo the normalization
        return (pixels * _mixed(torch.arange(pixels.shape[1], device=images.device))).sum(dim=1)


def _mixed(numbers: Tensor) -> Tensor:
    """Hash int64 numbers with the finalizer of SplitMix64 (Steele et al. 2014, OOPSLA); products wrap around."""
    numbers = numbers + _signed(0x9E3779B97F4A7C15)
    numbers = (numbers ^ _shifted(numbers, 30)) * _signed(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ _shifted(numbers, 27)) * _signed(0x94D049BB133111EB)
    return numbers ^ _shifted(numbers, 31)


def _shifted(numbers: Tensor, bits: int) -> Tensor:
    """Shift int64 numbers right, filling with zeros."""
    return (numbers >> bits) & ((1 << (64 - bits)) - 1)


def _signed(number: int) -> int:
    """Reinterpret 64 bits as a signed integer."""
    return number - (1 << 64) if number >> 63 else number
