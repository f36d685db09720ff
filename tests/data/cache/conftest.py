"""Photographs to decode, and stores to keep them in."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fgvc_cli.contracts import Preprocessing, Split
from fgvc_cli.data.cache import environment
from fgvc_cli.data.cache import store as image_store
from fgvc_cli.data.cache.resize import CachedResize
from fgvc_cli.data.cache.store import ImageStore, KeptImages


@pytest.fixture(autouse=True)
def _write_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write everything, however slow the disk is at the moment."""
    monkeypatch.setattr(image_store, "PATIENCE", 60.0)
    monkeypatch.setattr(image_store, "SLOW", math.inf)


@pytest.fixture
def preprocessing() -> Preprocessing:
    return Preprocessing(image_size=32, resize=40, mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2))


@pytest.fixture
def photographs(tmp_path: Path) -> Callable[..., Split]:
    """Make a split of JPEGs of noise in all shapes, larger and smaller than what is wanted of them."""

    def make(count: int = 12, name: str = "train") -> Split:
        rng = np.random.default_rng(len(name))
        (tmp_path / name).mkdir()
        paths = [tmp_path / name / f"{i:03d}.jpg" for i in range(count)]
        for i, path in enumerate(paths):
            size = ((200, 130), (90, 170), (30, 24), (41, 40))[i % 4]
            noise = rng.integers(0, 256, (size[1] // 4, size[0] // 4, 3), dtype=np.uint8)
            Image.fromarray(noise).resize(size).save(path, quality=90)
        return Split(name, paths, [i % 2 for i in range(count)], [path.name for path in paths])

    return make


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    """An empty store that may grow to 64 MiB."""
    folder = tmp_path / "store"
    folder.mkdir()
    environment.create(folder)
    return ImageStore(folder, 64 * 2**20)


@pytest.fixture
def keep(store: ImageStore, preprocessing: Preprocessing) -> Callable[..., KeptImages]:
    """Keep the images of a split in the store."""

    def keep(split: Split, rendition: CachedResize | None = None) -> KeptImages:
        return KeptImages(store, rendition or CachedResize.resized(preprocessing), split.images)

    return keep
