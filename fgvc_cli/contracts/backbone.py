"""The backbone contract: images in, feature maps and an embedding out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, NamedTuple

from torch import Tensor, nn

from fgvc_cli.errors import FgvcError, UsageError


class Features(NamedTuple):
    """Output of a backbone.

    Attributes:
        maps: the requested feature maps B,C,H,W by index into `BackboneInfo.maps`.
        embedding: the model's pooled features B,D; None if not requested.
    """

    maps: Mapping[int, Tensor]
    embedding: Tensor | None


class LabeledFeatures(NamedTuple):
    """Features of labeled images.

    Attributes:
        features: float32, maps N,C,H,W and the embedding N,D, as the head reads them.
        labels: class indices N (int64).
    """

    features: Features
    labels: Tensor


@dataclass(frozen=True)
class Reads:
    """What a head reads of a backbone.

    Attributes:
        maps: indices into `BackboneInfo.maps`, ascending.
        embedding: whether it reads the embedding.
    """

    maps: tuple[int, ...] = ()
    embedding: bool = False

    def __or__(self, other: Reads) -> Reads:
        """Return the union of both."""
        return Reads(tuple(sorted({*self.maps, *other.maps})), self.embedding or other.embedding)


@dataclass(frozen=True)
class MapInfo:
    """Shape of a feature map.

    Attributes:
        channels: number of channels C.
        stride: nominal stride, image pixels per point.
        grid: exact (H, W) at the image size that the backbone was built for.
    """

    channels: int
    stride: int
    grid: tuple[int, int]

    @property
    def points(self) -> int:
        """Number of points, H times W."""
        return self.grid[0] * self.grid[1]


@dataclass(frozen=True)
class ImageSizes:
    """Square image sizes, in pixels, that a backbone accepts.

    Attributes:
        minimum: smallest size.
        multiple: the size must be a multiple of this.
    """

    minimum: int = 32
    multiple: int = 1

    def check(self, size: int, name: str) -> None:
        """Check a size for the backbone called `name`.

        Raises:
            UsageError: the size is not accepted; names the nearest one that is.
        """
        if size >= self.minimum and size % self.multiple == 0:
            return
        least = -(-self.minimum // self.multiple) * self.multiple
        nearest = max(least, round(size / self.multiple) * self.multiple)
        rule = f"at least {least}" + (f" and a multiple of {self.multiple}" if self.multiple > 1 else "")
        raise UsageError(f"{name} cannot take images of {size} px: the size must be {rule}. Try `image_size={nearest}`")


@dataclass(frozen=True)
class BackboneInfo:
    """Description of a backbone at the image size that it was built for.

    Attributes:
        name: name of the component.
        architecture: whether the maps come from convolutions or from tokens.
        image_size: side of the square images, pixels.
        maps: the available feature maps, shallow to deep.
        embedding_width: width D of the embedding.
        mean, std: normalization per channel, for pixel values in [0, 1].
        channels_last: whether the channels-last memory format is recommended.
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
    """Target layer of class activation maps.

    Attributes:
        module: the module whose output is hooked.
        layout: layout of that output: "BCHW", "BHWC" or "BNC" (tokens).
        prefix: number of leading tokens (class token, registers) to drop; for "BNC".
        grid: (H, W) of the remaining tokens; for "BNC".
    """

    module: nn.Module
    layout: Literal["BCHW", "BHWC", "BNC"]
    prefix: int = 0
    grid: tuple[int, int] | None = None


@dataclass(frozen=True)
class TokenBlocks:
    """The blocks of a plain transformer, each of which attends once, from every token to every token.

    Attributes:
        modules: the blocks, in order; each takes tokens B,N,C as its first argument and returns as many.
        prefix: number of leading tokens without a place (class token, registers).
        grid: (H, W) of the other tokens, row by row.
    """

    modules: tuple[nn.Module, ...]
    prefix: int
    grid: tuple[int, int]


@dataclass(frozen=True)
class WeightsPackage:
    """A Python package that contains weights, to be found where it is installed.

    Attributes:
        distribution: name of the distribution.
        version: the version whose weights these are.
        file: path of the weights, relative to the folder that the distribution is installed in.
        sha256: of the file.
    """

    distribution: str
    version: str
    file: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}"

    def find(self) -> Path | None:
        """Return the installed file; None if the package is not installed. The package is not imported.

        Raises:
            FgvcError: another version is installed, or the file is missing.
        """
        remedy = f"run `pip install {self.distribution}=={self.version}`, or uninstall it"
        try:
            installed = metadata.distribution(self.distribution)
        except metadata.PackageNotFoundError:
            return None
        if installed.version != self.version:
            raise FgvcError(f"{self.distribution} {installed.version} is installed, but {self} is needed; {remedy}")
        path = Path(str(installed.locate_file(self.file)))
        if not path.is_file():
            raise FgvcError(f"the installed {self} has no {path.name}; {remedy}")
        return path


@dataclass(frozen=True)
class PretrainedWeights:
    """Published weights of a backbone.

    Attributes:
        name: full name, such as "swin_tiny_patch4_window7_224.ms_in1k".
        url: download URL.
        cached: the local file, if already downloaded.
        license: SPDX identifier, such as "apache-2.0"; empty if unknown.
        package: a package with these weights, which the host prefers to a download. If it is installed, `fetch` gets
            its file as `cached`.
    """

    name: str
    url: str
    cached: Path | None = None
    license: str = ""
    package: WeightsPackage | None = None


@dataclass(frozen=True)
class WeightsReport:
    """Result of loading a state dict.

    Attributes:
        loaded: names of the entries that were loaded.
        unknown: names of entries that the backbone does not have.
        missing: names of the backbone's entries that were not in the state dict and keep their values.
        classifier: weight K,D and bias K of the classification layer on the embedding, if the state dict has one. A
            head that is a linear layer takes it over (`Head.embedding_layer`).
    """

    loaded: tuple[str, ...]
    unknown: tuple[str, ...]
    missing: tuple[str, ...]
    classifier: tuple[Tensor, Tensor] | None = None


class Backbone(nn.Module, ABC):
    """Computes `Features` from images B,3,H,W.

    The host calls the component's target as `target(name=..., image_size=..., options=...)`, with the resolved name,
    the side of the square images in pixels, and the options dataclass. Weights are random until the host loads some.

    Raises:
        UsageError: the image size is not supported.
    """

    info: BackboneInfo

    @abstractmethod
    def forward(self, images: Tensor, reads: Reads) -> Features:
        """Compute the requested features, running no stage deeper than necessary.

        Args:
            images: B,3,H,W, normalized, of the size that the backbone was built for or one that `info_at` accepts.
            reads: which maps to compute, and whether to compute the embedding.
        """

    @abstractmethod
    def prune(self, reads: Reads) -> None:
        """Delete the modules that `reads` does not need, so that every remaining parameter gets a gradient."""

    @abstractmethod
    def cam_layer(self, map_index: int | None) -> CamLayer:
        """Return the layer to hook for a score computed from that map (None: from the embedding)."""

    def named_layer(self, name: str) -> CamLayer:  # noqa: ARG002
        """Return a layer of its own by the name of the module (`explainer.layer`).

        Raises:
            FgvcError: there is no such module, or its output is not a grid of points; or, the default, the backbone
                does not take names.
        """
        raise FgvcError(f"the backbone {self.info.name} does not take layers by name; choose one of its maps")

    def token_blocks(self) -> TokenBlocks:
        """Return the blocks whose attention maps explainers read.

        Raises:
            FgvcError: it is not a plain transformer, the default; says so in one line.
        """
        raise FgvcError(f"the backbone {self.info.name} is not a plain transformer")

    def info_at(self, image_size: int) -> BackboneInfo:
        """Return the description for images of another size, which `forward` takes as well, with the same weights.

        `train.progressive_size` starts with smaller images.

        Raises:
            UsageError: `forward` does not take that size; the default.
        """
        name, built_for = self.info.name, self.info.image_size
        raise UsageError(f"{name}, built for images of {built_for} px, does not take images of {image_size} px")

    def layer_depths(self, unit: Literal["stage", "block"]) -> dict[str, int]:  # noqa: ARG002
        """Return the depth of each parameter left by `prune`, by its name: 0 for the stem, then 1, 2 ... without gaps.

        `train.freeze` freezes stages, shallowest first. A layer after the last stage (a norm, a neck) belongs to it.

        Args:
            unit: whether the depth counts stages, or the blocks within them (the same where a stage is one block).

        Raises:
            FgvcError: the depths are unknown.
        """
        raise FgvcError(f"the backbone {self.info.name} does not say how deep its layers are (`layer_depths`)")

    def pretrained(self, tag: str | None = None) -> PretrainedWeights | None:  # noqa: ARG002
        """Return the pretrained weights with that tag (None: the default on ImageNet), or None if there are none."""
        return None

    def fetch(self, weights: PretrainedWeights) -> dict[str, Tensor]:
        """Return the state dict of pretrained weights, downloading them unless cached."""
        raise NotImplementedError(f"{type(self).__name__} has no pretrained weights {weights.name}")

    def load_weights(self, state: Mapping[str, Any]) -> WeightsReport:
        """Load a state dict in the naming of the pretrained weights; entries of a classification layer are ignored.

        Raises:
            FgvcError: an entry has the wrong shape, or nothing matches.
        """
        raise NotImplementedError(f"{type(self).__name__} cannot load weights ({len(state)} entries given)")
