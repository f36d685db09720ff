"""Images that differ from each other, and a folder of them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

CLASSES = 5
"""Classes of the kit's own problems."""


def images_of(count: int, size: int, seed: int = 0) -> Tensor:
    """Return normalised images B,3,S,S with a few coloured blobs each; each follows from its index and the seed."""
    at, images = torch.arange(size), []
    for index in range(count):
        generator = torch.Generator().manual_seed(1000 * seed + index)
        image = 0.3 * torch.randn(3, size, size, generator=generator)
        for _ in range(3):
            (y, x), colour = torch.rand(2, 1, generator=generator) * size, torch.randn(3, 1, 1, generator=generator)
            image += 3 * colour * torch.exp(-((at[:, None] - y) ** 2 + (at - x) ** 2) / (size / 8) ** 2)
        images.append(image)
    return torch.stack(images)


def labels_of(count: int) -> Tensor:
    """Return class indices B (int64), the classes in turn."""
    return torch.arange(count) % CLASSES


def probabilities_of(count: int) -> Tensor:
    """Return class probabilities B,K as label smoothing makes them."""
    return torch.nn.functional.one_hot(labels_of(count), CLASSES) * 0.9 + 0.1 / CLASSES


def write_folder(folder: Path) -> None:
    """Write a small data set: photographs of three colours in class folders of train, val and test."""
    import numpy as np
    from PIL import Image

    colours = {"blue": (30, 60, 200), "green": (40, 190, 60), "red": (210, 50, 40)}
    for split, count in (("train", 6), ("val", 2), ("test", 2)):
        for name, colour in colours.items():
            (folder / split / name).mkdir(parents=True, exist_ok=True)
            for i in range(count):
                noise = np.random.default_rng(100 * count + i).integers(-40, 40, (40, 48, 3))
                pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{i}.png")


def write_table(folder: Path, ending: str) -> Path:
    """Write such photographs, and a table of path, label and split beside them; return the table."""
    write_folder(folder)
    separator = "\t" if ending == ".tsv" else ","
    files = sorted(path.relative_to(folder) for path in folder.rglob("*.png"))
    rows = [(file.as_posix(), file.parts[1], file.parts[0]) for file in files]
    table = folder / f"table{ending}"
    table.write_text("".join(f"{separator.join(row)}\n" for row in [("path", "label", "split"), *rows]), "utf-8")
    return table
