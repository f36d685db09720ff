"""Draws the images of the demo set and writes them as a folder of PNGs that knows where the parts are."""

from __future__ import annotations

import json
import secrets
import shutil
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from fgvc_datasets.demo.canvas import Box
from fgvc_datasets.demo.scene import draw_scene
from fgvc_datasets.demo.species import CLASS_NAMES, SPECIES, deciding_parts

__all__ = ["CLASS_NAMES", "DemoImage", "draw_image", "generate"]


@dataclass(frozen=True)
class DemoImage:
    """An image with its truth: `label` indexes `CLASS_NAMES`, `parts` are boxes (x0, y0, x1, y1) in pixels."""

    image: Image.Image
    label: int
    parts: dict[str, Box]


def draw_image(seed: int, split: str, index: int, size: int) -> DemoImage:
    """Draws one image of `size` x `size` pixels, the same whenever and wherever its arguments are the same.

    Its class is number `index` modulo the number of classes; nothing else in the image depends on the class.
    """
    sequence = np.random.SeedSequence([seed, zlib.crc32(split.encode()), index])
    label = index % len(CLASS_NAMES)
    image, parts = draw_scene(np.random.Generator(np.random.Philox(sequence)), SPECIES[CLASS_NAMES[label]], size)
    return DemoImage(image, label, parts)


def generate(
    folder: Path, seed: int, size: int, counts: Mapping[str, int], report: Callable[[int, int], None] | None = None
) -> None:
    """Writes `folder`/<split>/<class>/<nnnn>.png and `folder`/parts.json.

    `counts` says how many images a class gets in each split; `report(done, total)` is called after each image. The set
    is written beside `folder` and renamed when it is complete: a run that is killed leaves no half-made set, and of
    two that write the same set at once the later one keeps the earlier one's.

    Raises:
        FileExistsError: `folder` is there already and holds something else than this very set.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = folder.parent / f".{folder.name}-{secrets.token_hex(6)}"
    try:
        beside.mkdir()
        _write(beside, seed, size, counts, report)
        _move(beside, folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _write(
    folder: Path, seed: int, size: int, counts: Mapping[str, int], report: Callable[[int, int], None] | None
) -> None:
    total, done = sum(counts.values()) * len(CLASS_NAMES), 0
    boxes: dict[str, dict[str, Box]] = {}
    for split, count in counts.items():
        for name in CLASS_NAMES:
            (folder / split / name).mkdir(parents=True)
        for index in range(count * len(CLASS_NAMES)):
            drawn = draw_image(seed, split, index, size)
            path = f"{split}/{CLASS_NAMES[drawn.label]}/{index // len(CLASS_NAMES):04d}.png"
            drawn.image.save(folder / path, compress_level=1)
            boxes[path] = drawn.parts
            done += 1
            if report is not None:
                report(done, total)
    truth = {
        "seed": seed,
        "size": size,
        "classes": CLASS_NAMES,
        "deciding_parts": {name: deciding_parts(name) for name in CLASS_NAMES},
        "images": boxes,
    }
    (folder / "parts.json").write_text(json.dumps(truth) + "\n", encoding="utf-8")


def _move(complete: Path, folder: Path) -> None:
    """Renames `complete` to `folder`, unless the same set came to be there meanwhile."""
    try:
        complete.rename(folder)
    except OSError as error:
        there = folder / "parts.json"
        if there.is_file() and there.read_bytes() == (complete / "parts.json").read_bytes():
            return
        raise FileExistsError(f"{folder} is there already and holds another dataset") from error
