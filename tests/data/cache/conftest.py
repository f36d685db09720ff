"""Photographs to decode, and a decode cache for them."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fgvc_cli.contracts import Preprocessing, Split
from fgvc_cli.data.cache import store
from fgvc_cli.data.cache import store as environment
from fgvc_cli.data.cache.store import CachedImages, DecodeCache
from fgvc_cli.data.images import CachedResize


@pytest.fixture(autouse=True)
def _write_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write everything, however slow the disk is at the moment."""
    monkeypatch.setattr(store, "PATIENCE", 60.0)
    monkeypatch.setattr(store, "SLOW", math.inf)


@pytest.fixture
def preprocessing() -> Preprocessing:
    return Preprocessing(image_size=32, resize=40, mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2))


@pytest.fixture(scope="session")
def jpegs(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """JPEGs of noise in four shapes, larger and smaller than the resize."""
    folder, rng, made = tmp_path_factory.mktemp("jpegs"), np.random.default_rng(5), []
    for i in range(12):
        width, height = ((200, 130), (90, 170), (30, 24), (41, 40))[i % 4]
        noise = rng.integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((width, height)).save(folder / "a.jpg", quality=90)
        made.append((folder / "a.jpg").read_bytes())
    return made


@pytest.fixture
def photographs(tmp_path: Path, jpegs: list[bytes]) -> Callable[..., Split]:
    """A function that makes a split of JPEGs."""

    def make(count: int = 12, name: str = "train") -> Split:
        (tmp_path / name).mkdir()
        paths = [tmp_path / name / f"{i:03d}.jpg" for i in range(count)]
        for i, path in enumerate(paths):
            path.write_bytes(jpegs[i % 12])
        return Split(name, paths, [i % 2 for i in range(count)], [path.name for path in paths])

    return make


@pytest.fixture
def cache(tmp_path: Path) -> DecodeCache:
    """An empty cache that may grow to 64 MiB."""
    folder = tmp_path / "cache"
    folder.mkdir()
    environment.create(folder)
    return DecodeCache(folder, 64 * 2**20)


@pytest.fixture
def cached(cache: DecodeCache, preprocessing: Preprocessing) -> Callable[..., CachedImages]:
    """A function that returns the images of a split in the cache."""

    def make(split: Split, resize: CachedResize | None = None) -> CachedImages:
        return CachedImages(cache, resize or CachedResize.of_preprocessing(preprocessing), split.images)

    return make
