"""A map that knows nothing of the model: the baseline to beat."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from fgvc_cli.contracts import Classifier, Explainer
from fgvc_explainers.options import RandomOptions
from fgvc_explainers.scaling import at_image_size, to_unit_range

BITS = 24
"""Of each number drawn: what a float32 holds exactly."""


class RandomMap(Explainer):
    """Marks each pixel (or cell) with a number drawn evenly from [0, 1).

    The numbers are a hash of the seed, the image's pixels and the place, so that an image gets the same map in any
    batch and on any device.

    Args:
        options: see `RandomOptions`.
    """

    def __init__(self, options: RandomOptions) -> None:
        self.options = options

    @torch.no_grad()
    def explain(self, classifier: Classifier, images: Tensor, targets: Tensor) -> Tensor:  # noqa: ARG002
        """Return maps B,S,S in [0, 1) of images B,3,S,S; enlarged ones are scaled to reach 1."""
        height, width = images.shape[2:]
        grid = self.options.grid
        keys = _mixed(_mixed(self._keys(classifier, images)) + self.options.seed)
        places = torch.arange(grid * grid or height * width, device=images.device)
        drawn = _mixed(keys.unsqueeze(1) + _mixed(places))
        maps = _top_bits(drawn).float() / 2**BITS
        if not grid:
            return maps.unflatten(1, (height, width))
        return to_unit_range(at_image_size(maps.unflatten(1, (grid, grid)), (height, width)))

    def _keys(self, classifier: Classifier, images: Tensor) -> Tensor:
        """Return B numbers (int64) that tell the images, or their places, apart."""
        if self.options.by == "position":
            return torch.arange(len(images), device=images.device)
        scale, shift = cast(Tensor, classifier.scale), cast(Tensor, classifier.shift)
        pixels = ((images.float() - shift) / scale).round().long().flatten(1)  # as they were before normalization
        return (pixels * _mixed(torch.arange(pixels.shape[1], device=images.device))).sum(dim=1)


def _mixed(numbers: Tensor) -> Tensor:
    """Scramble int64 numbers by the finaliser of SplitMix64 (Steele et al. 2014, OOPSLA); products wrap around."""
    numbers = numbers + _signed(0x9E3779B97F4A7C15)
    numbers = (numbers ^ _shifted(numbers, 30)) * _signed(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ _shifted(numbers, 27)) * _signed(0x94D049BB133111EB)
    return numbers ^ _shifted(numbers, 31)


def _top_bits(numbers: Tensor) -> Tensor:
    return _shifted(numbers, 64 - BITS)


def _shifted(numbers: Tensor, bits: int) -> Tensor:
    """Shift int64 numbers right, zeros coming in from the left."""
    return (numbers >> bits) & ((1 << (64 - bits)) - 1)


def _signed(number: int) -> int:
    """Read 64 bits as a signed number."""
    return number - (1 << 64) if number >> 63 else number
