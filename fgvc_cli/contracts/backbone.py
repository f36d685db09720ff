"""The backbone contract: images in, feature maps and an embedding out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from torch import Tensor, nn

from fgvc_cli.errors import UsageError


class Features(NamedTuple):
    """What a backbone makes of a batch.

    Attributes:
        maps: feature maps B,C,H,W by their index among `BackboneInfo.maps`; only those that were asked for.
        embedding: the model's own pooled features B,D, or None if they were not asked for.
    """

    maps: Mapping[int, Tensor]
    embedding: Tensor | None


@dataclass(frozen=True)
class Reads:
    """What is read of a backbone: indices into `BackboneInfo.maps`, ascending, and whether the embedding is."""

    maps: tuple[int, ...] = ()
    embedding: bool = False

    def __or__(self, other: Reads) -> Reads:
        """Return what the two read together."""
        return Reads(tuple(sorted({*self.maps, *other.maps})), self.embedding or other.embedding)


@dataclass(frozen=True)
class MapInfo:
    """One feature map.

    Attributes:
        channels: its channels C.
        stride: pixels of the image to one point of the map, nominally.
        grid: its exact (H, W) at the image size that the backbone was built for.
    """

    channels: int
    stride: int
    grid: tuple[int, int]

    @property
    def points(self) -> int:
        """How many points the map has."""
        return self.grid[0] * self.grid[1]


@dataclass(frozen=True)
class ImageSizes:
    """The square image sizes (pixels) a backbone accepts: at least `minimum`, and a multiple of `multiple`."""

    minimum: int = 32
    multiple: int = 1

    def check(self, size: int, name: str) -> None:
        """Raise `UsageError` with the nearest sizes if `size` is not accepted by the backbone called `name`."""
        if size >= self.minimum and size % self.multiple == 0:
            return
        least = -(-self.minimum // self.multiple) * self.multiple
        nearest = max(least, round(size / self.multiple) * self.multiple)
        rule = f"at least {least}" + (f" and a multiple of {self.multiple}" if self.multiple > 1 else "")
        raise UsageError(
            f"{name} cannot take images of {size} px: the size must be {rule}. Try --image-size {nearest}."
        )


@dataclass(frozen=True)
class BackboneInfo:
    """What a backbone tells the rest about itself at the image size it was built for.

    Attributes:
        name: the component's name.
        architecture: whether its maps come from convolutions or from tokens.
        image_size: side of the square images, pixels.
        maps: the feature maps it offers, shallow to deep.
        embedding_width: D of the embedding.
        mean, std: the normalization of its images, by channel, for pixel values in [0, 1].
        channels_last: whether the channels-last memory format suits it.
    """

    name: str
    architecture: Literal["convolutional", "transformer"]
    image_size: int
    maps: tuple[MapInfo, ...]
    embedding_width: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    channels_last: bool = False


@dataclass(frozen=True)
class CamLayer:
    """Where class activation maps are taken.

    Attributes:
        module: the module whose output is hooked.
        layout: how that output is laid out: "BCHW", "BHWC" or "BNC" (tokens).
        prefix: leading tokens (class token, registers) to drop; for "BNC".
        grid: (H, W) of the tokens; for "BNC".
    """

    module: nn.Module
    layout: Literal["BCHW", "BHWC", "BNC"]
    prefix: int = 0
    grid: tuple[int, int] | None = None


@dataclass(frozen=True)
class PretrainedWeights:
    """Published weights of a backbone.

    Attributes:
        name: their full name, such as "swin_tiny_patch4_window7_224.ms_in1k".
        url: where they would be downloaded from.
        cached: the local file, if they are here already.
    """

    name: str
    url: str
    cached: Path | None = None


@dataclass(frozen=True)
class WeightsReport:
    """What became of a state dict's entries: names loaded, names the backbone lacks, names left as they were."""

    loaded: tuple[str, ...]
    unknown: tuple[str, ...]
    missing: tuple[str, ...]


class Backbone(nn.Module, ABC):
    """Turns images B,3,H,W into `Features`.

    The host calls the component's target as `target(name=..., image_size=..., options=...)`: the name as resolved,
    the side of the square images in pixels, and its options dataclass. It raises `UsageError` for a size that it
    cannot take. Weights are random until the host loads some.
    """

    info: BackboneInfo

    @abstractmethod
    def forward(self, images: Tensor, reads: Reads) -> Features:
        """Compute what `reads` asks for, and stop after the deepest stage that is needed for it.

        Args:
            images: B,3,H,W, normalized, of the size the backbone was built for.
            reads: the maps wanted, and whether the embedding is.
        """

    @abstractmethod
    def prune(self, reads: Reads) -> None:
        """Drop the modules that nothing in `reads` needs, so that every parameter left gets a gradient."""

    @abstractmethod
    def cam_layer(self, map_index: int | None) -> CamLayer:
        """Name the module to hook for a score read from that map (None: the embedding), or from what follows it."""

    def pretrained(self, tag: str | None = None) -> PretrainedWeights | None:  # noqa: ARG002
        """Return the published weights with that tag (None: ImageNet's default), or None if there are none."""
        return None

    def fetch(self, weights: PretrainedWeights) -> dict[str, Tensor]:
        """Read published weights from the cache, downloading them if they are not there."""
        raise NotImplementedError(f"{type(self).__name__} publishes no weights, but was asked for {weights.name}")

    def load_weights(self, state: Mapping[str, Any]) -> WeightsReport:
        """Load a state dict in the backbone's published naming; entries of a classifier on top are ignored.

        Raises:
            FgvcError: an entry has the wrong shape, or nothing matches.
        """
        raise NotImplementedError(f"{type(self).__name__} cannot load weights ({len(state)} entries given)")
