"""Fake backbones for the heads: what one would say of itself, and features of those shapes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from fgvc_cli.contracts import BackboneInfo, Features, MapInfo


def _info(architecture: str, maps: tuple[MapInfo, ...]) -> BackboneInfo:
    return BackboneInfo(
        name="fake",
        architecture=architecture,  # type: ignore[arg-type]
        image_size=36,
        maps=maps,
        embedding_width=10,
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
    )


@pytest.fixture
def cnn() -> BackboneInfo:
    """Odd grids, so that no map is twice the next; the two deepest have one grid."""
    return _info(
        "convolutional",
        (MapInfo(4, 4, (9, 9)), MapInfo(6, 8, (5, 5)), MapInfo(8, 16, (3, 3)), MapInfo(10, 16, (3, 3))),
    )


@pytest.fixture
def transformer() -> BackboneInfo:
    """A windowed transformer after patch merging: the last two maps have equally many tokens."""
    return _info(
        "transformer",
        (MapInfo(4, 4, (9, 9)), MapInfo(6, 8, (5, 5)), MapInfo(8, 16, (3, 3)), MapInfo(8, 16, (3, 3))),
    )


@pytest.fixture
def vit() -> BackboneInfo:
    """Four maps of one grid: 3x3 patches and a class token, as one row of tokens."""
    return _info("transformer", (MapInfo(8, 16, (1, 10)),) * 4)


@pytest.fixture
def features_of() -> Callable[..., Features]:
    """Random features of a backbone: `features_of(info, images, seed=0, dtype=torch.float32)`."""

    def make(info: BackboneInfo, images: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Features:
        generator = torch.Generator().manual_seed(seed)
        maps = {
            index: torch.randn(images, m.channels, *m.grid, generator=generator, dtype=dtype).requires_grad_()
            for index, m in enumerate(info.maps)
        }
        embedding = torch.randn(images, info.embedding_width, generator=generator, dtype=dtype)
        return Features(maps, embedding)

    return make
