"""Four strided convolutions, with their weights in this package."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from safetensors.torch import load_file
from torch import Tensor, nn

from fgvc_cli import FgvcError
from fgvc_cli.contracts import (
    Backbone,
    BackboneInfo,
    CamLayer,
    Features,
    ImageSizes,
    MapInfo,
    PretrainedWeights,
    Reads,
    WeightsReport,
)

WIDTHS = (8, 16, 32, 64)
HALF = (0.5, 0.5, 0.5)


class Pocket(Backbone):
    """Maps of stride 2, 4, 8 and 16; the embedding is the mean of the last one."""

    def __init__(self, name: str, image_size: int, options: Any) -> None:  # noqa: ARG002
        super().__init__()
        ImageSizes(minimum=32, multiple=16).check(image_size, name)
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU())
            for before, after in zip((3, *WIDTHS), WIDTHS, strict=False)
        )
        maps = tuple(MapInfo(w, 2 << i, (image_size // (2 << i),) * 2) for i, w in enumerate(WIDTHS))
        self.info = BackboneInfo(name, "convolutional", image_size, maps, WIDTHS[-1], HALF, HALF)

    def forward(self, images: Tensor, reads: Reads) -> Features:
        """Compute the requested features."""
        x, maps = images, {}
        for index in range(self._depth(reads)):
            x = self.stages[index](x)
            if index in reads.maps:
                maps[index] = x
        return Features(maps, x.mean((2, 3)) if reads.embedding else None)

    def prune(self, reads: Reads) -> None:
        """Delete the stages after the deepest one that is read."""
        del self.stages[self._depth(reads) :]

    def cam_layer(self, map_index: int | None) -> CamLayer:
        """Return the stage of the map."""
        return CamLayer(self.stages[-1 if map_index is None else map_index], "BCHW")

    def layer_depths(self, unit: Literal["stage", "block"]) -> dict[str, int]:  # noqa: ARG002
        """Return the number of the stage."""
        return {name: int(name.split(".")[1]) for name, _ in self.named_parameters()}

    def pretrained(self, tag: str | None = None) -> PretrainedWeights | None:
        """Return the weights in this package: as `cached`, they are never downloaded."""
        if tag not in (None, "demo"):
            return None
        file = Path(__file__).with_name("pocket.safetensors")
        return PretrainedWeights("pocket.demo", "https://example.org/fgvc-pocket", cached=file, license="apache-2.0")

    def fetch(self, weights: PretrainedWeights) -> dict[str, Tensor]:
        """Read the file."""
        assert weights.cached is not None
        state: dict[str, Tensor] = load_file(weights.cached)
        return state

    def load_weights(self, state: Mapping[str, Any]) -> WeightsReport:
        """Load the entries that this backbone has."""
        own = self.state_dict()
        loaded = {name: value for name, value in state.items() if name in own and value.shape == own[name].shape}
        if not loaded:
            raise FgvcError(f"none of the {len(state)} entries is one of {self.info.name}")
        self.load_state_dict({**own, **loaded})
        unknown, missing = sorted(set(state) - set(loaded)), sorted(set(own) - set(loaded))
        return WeightsReport(tuple(loaded), tuple(unknown), tuple(missing))

    def _depth(self, reads: Reads) -> int:
        return len(WIDTHS) if reads.embedding else max(reads.maps, default=-1) + 1
