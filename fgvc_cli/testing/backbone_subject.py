"""A backbone that is being checked, at the smallest image size that it takes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor

from fgvc_cli.contracts import Backbone, BackboneInfo, Features, Reads
from fgvc_cli.errors import UsageError
from fgvc_cli.registry import Component
from fgvc_cli.runs.assembly import build_backbone
from fgvc_cli.specs import BackboneSpec
from fgvc_cli.testing.check import ContractBroken
from fgvc_cli.testing.subject import Subject
from fgvc_cli.testing.tiny.images import images_of

SIZES = (64, 32, 96, 128, 160, 192, 224, 256, 288, 320, 384, 448, 512)
"""Image sizes to try, in pixels; at 64 most architectures leave their deepest map more than one point."""


@dataclass(frozen=True)
class BackboneSubject:
    """A backbone and where it is checked."""

    subject: Subject

    @property
    def spec(self) -> BackboneSpec:
        """What its plugin says of it."""
        return cast(BackboneSpec, self.subject.component.spec)

    def make(self, size: int | None = None, seed: int = 0) -> Backbone:
        """Build it with weights by a seed, for images of that size (None: the one that it is checked at)."""
        torch.manual_seed(seed)
        given = {"name": self.spec.name, "image_size": self.size if size is None else size}
        backbone: Backbone = self.subject.make(Backbone, **given, options=self.subject.options())
        return backbone

    @cached_property
    def size(self) -> int:
        """The first of `SIZES` that it takes."""
        return smallest_size(self.subject.component, self.subject.options())

    @cached_property
    def info(self) -> BackboneInfo:
        """What it says of itself at that size."""
        return self.make().info

    def images(self, count: int = 2, size: int | None = None) -> Tensor:
        """Return images B,3,S,S of that size."""
        return images_of(count, self.size if size is None else size)

    def everything(self) -> Reads:
        """Return all maps and the embedding."""
        return Reads(tuple(range(len(self.info.maps))), embedding=True)

    def reads(self) -> Iterator[Reads]:
        """Give what heads usually read: the embedding, the deepest map, the shallowest one, and everything."""
        last = len(self.info.maps) - 1
        yield Reads(embedding=True)
        if last >= 0:
            yield Reads((last,))
        if last > 0:
            yield Reads((0,))
        yield self.everything()


def smallest_size(component: Component, options: Any) -> int:
    """Return the first of `SIZES` that a backbone takes.

    Raises:
        ContractBroken: it takes none.
    """
    refusal = ""
    for size in SIZES:
        try:
            build_backbone(component, options, size)
        except UsageError as error:
            refusal = str(error)
        else:
            return size
    raise ContractBroken(
        f"a backbone for images of some size from {min(SIZES)} to {max(SIZES)} px", refusal, "let it take one of them"
    )


def tensors_of(features: Features) -> dict[str, Tensor]:
    """Return what was computed, by name: "map 0", "the embedding"."""
    named = {f"map {index}": value for index, value in features.maps.items()}
    return named if features.embedding is None else {**named, "the embedding": features.embedding}


def text_of(reads: Reads) -> str:
    """Write what is read: "maps 0, 1 and the embedding"."""
    maps = f"map{'s' * (len(reads.maps) > 1)} {', '.join(map(str, reads.maps))}" if reads.maps else ""
    return " and ".join(filter(None, (maps, "the embedding" if reads.embedding else "")))
