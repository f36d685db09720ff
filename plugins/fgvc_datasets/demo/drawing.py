"""Draw the images of `demo` into a folder, on several cores. Free of torch, which other processes need not import."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fgvc_datasets.demo.canvas import Box
from fgvc_datasets.demo.scene import draw_scene
from fgvc_datasets.demo.species import SPECIES, UNKNOWN_SPECIES, Traits, deciding_parts

Report = Callable[[int, int], None]
Boxes = dict[str, dict[str, Box]]
"""Boxes of the parts, by the path of the image and the name of the part."""

SETS: dict[str, Mapping[str, Traits]] = {"demo": SPECIES, "demo_unknown": UNKNOWN_SPECIES}
"""Species that other processes know by name."""

SHARE = 100
"""Images for which another process is worth its start, which takes as long as about 20."""
MOST = 8
"""Maximum number of processes."""


@dataclass(frozen=True)
class DemoImage:
    """An image with its ground truth.

    Attributes:
        image: RGB.
        label: index into the sorted names of the species.
        parts: boxes (x0, y0, x1, y1) of the parts, in pixels.
    """

    image: Image.Image
    label: int
    parts: dict[str, Box]


def draw_image(seed: int, split: str, index: int, size: int, species: Mapping[str, Traits] = SPECIES) -> DemoImage:
    """Draw one image of `size` x `size` pixels, which depends on the arguments only.

    Its class is `index` modulo the number of classes; nothing else in the image depends on the class.
    """
    sequence = np.random.SeedSequence([seed, zlib.crc32(split.encode()), index])
    names = sorted(species)
    label = index % len(names)
    image, parts = draw_scene(np.random.Generator(np.random.Philox(sequence)), species[names[label]], size)
    return DemoImage(image, label, parts)


def generate(
    folder: Path,
    seed: int,
    size: int,
    counts: Mapping[str, int],
    report: Report | None = None,
    species: Mapping[str, Traits] = SPECIES,
    prefix: str = "",
) -> None:
    """Write `folder`/<split>/<class>/<nnnn>.png and `folder`/parts.json; many images are drawn by a process per core.

    The images are written to a temporary folder that is renamed when it is complete: a killed run leaves no partial
    dataset, and of two processes that write the same dataset the later one keeps the earlier one's.

    Args:
        folder: must not exist yet.
        seed: seed of the images.
        size: image side in pixels.
        counts: number of images per class in each split.
        report: called with (images done, total images) after each image.
        species: traits by name.
        prefix: before the name of a split, for other images with the same seed.

    Raises:
        FileExistsError: `folder` exists and contains another dataset.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.parent / f".{folder.name}-{secrets.token_hex(6)}"
    try:
        temporary.mkdir()
        _write(temporary, Scenes(seed, size, dict(counts), species, prefix), report)
        _move(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@dataclass(frozen=True)
class Scenes:
    """All images of a dataset, see `generate`."""

    seed: int
    size: int
    counts: dict[str, int]
    species: Mapping[str, Traits]
    prefix: str

    @property
    def names(self) -> list[str]:
        """The names of the classes."""
        return sorted(self.species)

    @property
    def set_name(self) -> str | None:
        """The name of the species in `SETS`; None for others."""
        return next((name for name, species in SETS.items() if species is self.species), None)

    def paths(self) -> list[tuple[str, int, str]]:
        """Return split, index and path of each image."""
        names = self.names
        return [
            (split, index, f"{split}/{names[index % len(names)]}/{index // len(names):04d}.png")
            for split, count in self.counts.items()
            for index in range(count * len(names))
        ]

    def draw(self, folder: Path, split: str, index: int, path: str) -> dict[str, Box]:
        """Write an image and return its boxes."""
        drawn = draw_image(self.seed, f"{self.prefix}{split}", index, self.size, self.species)
        drawn.image.save(folder / path, compress_level=1)
        return drawn.parts


def _write(folder: Path, scenes: Scenes, report: Report | None) -> None:
    for split in scenes.counts:
        for name in scenes.names:
            (folder / split / name).mkdir(parents=True)
    paths = scenes.paths()
    boxes: Boxes = {}

    def draw(split: str, index: int, path: str) -> None:
        boxes[path] = scenes.draw(folder, split, index, path)
        if report is not None:
            report(len(boxes), len(paths))

    processes = max(1, min(_cores(), MOST, len(paths) // SHARE)) if scenes.set_name and sys.executable else 1
    with ExitStack() as stack:
        contexts = (_other_process(folder, scenes, first, processes, boxes) for first in range(1, processes))
        others = [stack.enter_context(context) for context in contexts]
        for image in paths[::processes]:
            draw(*image)
        for other in filter(None, others):
            other.join()
    for image in paths:
        if image[2] not in boxes:  # of a process that could not start, or was killed
            draw(*image)
    truth = {
        "seed": scenes.seed,
        "size": scenes.size,
        "classes": scenes.names,
        "deciding_parts": {name: deciding_parts(name, scenes.species) for name in scenes.names},
        "images": {path: boxes[path] for _, _, path in paths},
    }
    (folder / "parts.json").write_text(json.dumps(truth) + "\n", encoding="utf-8")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _other_process(
    folder: Path, scenes: Scenes, first: int, step: int, boxes: Boxes
) -> Iterator[threading.Thread | None]:
    """Let another process draw every `step`-th image from the `first`, at most while the block runs.

    Yields:
        The thread that collects its boxes, which ends with it; None if it could not be started.
    """
    task = {"folder": str(folder), "seed": scenes.seed, "size": scenes.size, "counts": scenes.counts}
    text = json.dumps({**task, "set": scenes.set_name, "prefix": scenes.prefix})
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", __name__, text, str(first), str(step)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
    except OSError:
        yield None
        return
    with process:
        assert process.stdout is not None
        reader = threading.Thread(target=_collect, args=(process.stdout, boxes), daemon=True)
        reader.start()
        try:
            yield reader
        finally:
            process.terminate()
            reader.join()


def _collect(lines: Any, boxes: Boxes) -> None:
    for line in lines:
        if line.startswith("[") and line.endswith("]\n"):  # else it was stopped while it wrote
            path, found = json.loads(line)
            boxes[path] = {part: (box[0], box[1], box[2], box[3]) for part, box in found.items()}


def _draw_share(task: dict[str, Any], first: int, step: int) -> None:
    scenes = Scenes(task["seed"], task["size"], task["counts"], SETS[task["set"]], task["prefix"])
    for split, index, path in scenes.paths()[first::step]:
        boxes = scenes.draw(Path(task["folder"]), split, index, path)
        sys.stdout.write(json.dumps([path, boxes]) + "\n")
        sys.stdout.flush()


def _move(complete: Path, folder: Path) -> None:
    """Rename `complete` to `folder`, unless the same dataset exists there by now."""
    try:
        complete.rename(folder)
    except OSError as error:
        there = folder / "parts.json"
        if there.is_file() and there.read_bytes() == (complete / "parts.json").read_bytes():
            return
        raise FileExistsError(f"{folder} exists and contains another dataset") from error


if __name__ == "__main__":
    _draw_share(json.loads(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
