"""Two small backbones: one whose maps have four strides, one whose maps are tokens of one stride."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fgvc_cli.contracts import Backbone, BackboneInfo, CamLayer, Features, ImageSizes, MapInfo, Reads

IMAGE_SIZE = 64
"""Pixels of the side of the images that the kit shows its own backbones."""

HALF = (0.5, 0.5, 0.5)


class TinyBackbone(Backbone):
    """What the two have in common: stages, of which each makes a map of the one before, and a neck that pools."""

    stem: nn.Module
    stages: nn.ModuleList
    neck: nn.Module

    def forward(self, images: Tensor, reads: Reads) -> Features:
        """Compute what `reads` asks for, and no further."""
        x, maps = self.stem(images), {}
        for index, stage in enumerate(self.stages[: self._depth(reads)]):
            x = stage(x)
            if index in reads.maps:
                maps[index] = x
        return Features(maps, self.neck(x.mean((2, 3))) if reads.embedding else None)

    def prune(self, reads: Reads) -> None:
        """Drop the stages below the deepest map, and the neck, if nothing reads them."""
        del self.stages[self._depth(reads) :]
        if not reads.embedding:
            self.neck = nn.Identity()

    def cam_layer(self, map_index: int | None) -> CamLayer:
        """Name the stage that makes the map; for the embedding the last one."""
        return CamLayer(self.stages[-1 if map_index is None else map_index], "BCHW")

    def _depth(self, reads: Reads) -> int:
        return len(self.info.maps) if reads.embedding else max(reads.maps, default=-1) + 1


class TinyConvolutional(TinyBackbone):
    """Strided convolutions with batch normalisation: maps of stride 4, 8, 16 and 32, an embedding of width 20."""

    def __init__(self, image_size: int = IMAGE_SIZE) -> None:
        super().__init__()
        ImageSizes(minimum=32, multiple=32).check(image_size, "tiny-convolutional")
        widths = (8, 12, 16, 24)
        self.stem = _convolution(3, 8)
        self.stages = nn.ModuleList(
            _convolution(before, after) for before, after in zip((8, *widths), widths, strict=False)
        )
        self.neck = nn.Linear(widths[-1], 20)
        maps = tuple(MapInfo(w, 4 << i, (image_size // (4 << i),) * 2) for i, w in enumerate(widths))
        self.info = BackboneInfo("tiny-convolutional", "convolutional", image_size, maps, 20, HALF, HALF)


class TinyTokens(TinyBackbone):
    """Four blocks on patches of 16 x 16 pixels: four maps of one stride, an embedding of width 12."""

    def __init__(self, image_size: int = IMAGE_SIZE) -> None:
        super().__init__()
        ImageSizes(minimum=32, multiple=16).check(image_size, "tiny-tokens")
        side, width = image_size // 16, 16
        self.stem = nn.Conv2d(3, width, 16, 16)
        self.stages = nn.ModuleList(_Block(width, side * side) for _ in range(4))
        self.neck = nn.Linear(width, 12)
        maps = (MapInfo(width, 16, (side, side)),) * 4
        self.info = BackboneInfo("tiny-tokens", "transformer", image_size, maps, 12, HALF, HALF)


class _Block(nn.Module):
    """Mixes tokens, then channels."""

    def __init__(self, width: int, tokens: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.tokens, self.channels = nn.Linear(tokens, tokens), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        points = self.norm(x.flatten(2).transpose(1, 2))  # B,N,C
        mixed = torch.nn.functional.gelu(self.channels(self.tokens(points.transpose(1, 2)).transpose(1, 2)))
        return x + mixed.transpose(1, 2).unflatten(2, x.shape[2:])


def _convolution(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU())
