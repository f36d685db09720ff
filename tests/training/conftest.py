"""A dataset of flat colors: small enough to train on in a test, easy enough to learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

COLORS = {"blue": (30, 60, 200), "green": (40, 190, 60), "red": (210, 50, 40)}


def write_images(folder: Path, counts: dict[str, int], seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    for name, count in counts.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            noise = rng.integers(-40, 40, (40, 48, 3))
            pixels = np.clip(np.array(COLORS[name]) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")


@pytest.fixture(scope="session")
def photos(tmp_path_factory) -> Path:
    """Class folders in train, val and test; val lacks a class."""
    root = tmp_path_factory.mktemp("photos")
    write_images(root / "train", dict.fromkeys(COLORS, 9), 1)
    write_images(root / "val", {"red": 3, "green": 3}, 2)
    write_images(root / "test", dict.fromkeys(COLORS, 4), 3)
    return root
