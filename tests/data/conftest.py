"""Small splits of images that the tests write themselves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fgvc_cli.contracts import Preprocessing, Split


@pytest.fixture
def preprocessing() -> Preprocessing:
    return Preprocessing(image_size=16, resize=20, mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2))


@pytest.fixture
def make_split(tmp_path: Path) -> Callable[..., Split]:
    """Make a split of PNG files of noise, two classes in turn."""

    def make(count: int, size: tuple[int, int] = (30, 24), name: str = "train") -> Split:
        rng = np.random.default_rng(0)
        folder = tmp_path / name
        folder.mkdir()
        paths = [folder / f"{i:03d}.png" for i in range(count)]
        for path in paths:
            Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(path)
        return Split(name, paths, [i % 2 for i in range(count)], [path.name for path in paths])

    return make
