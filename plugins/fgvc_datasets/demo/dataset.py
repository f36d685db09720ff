"""The datasets `demo` and `demo_unknown`: images of synthetic birds, generated on first use and kept in the cache."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import tempfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import Image

from fgvc_cli.contracts import Dataset, DatasetRequest, Split
from fgvc_cli.errors import FgvcError
from fgvc_datasets.demo.canvas import Box
from fgvc_datasets.demo.scene import draw_scene
from fgvc_datasets.demo.species import SPECIES, UNKNOWN_SPECIES, Traits, deciding_parts
from fgvc_datasets.options import DemoOptions

DRAWING_VERSION = 1
"""Increase it when the drawing changes, so that cached images of an older version are not reused."""

SPLITS = ("train", "val", "test")


class DemoDataset(Dataset):
    """Synthetic images whose classes differ in small parts with known locations.

    The images depend on the options only, not on the seed of the training.

    Raises:
        FgvcError: the cached images are damaged, or there is no space for new ones.
    """

    name = "demo"
    species: Mapping[str, Traits] = SPECIES

    def __init__(self, request: DatasetRequest, options: DemoOptions) -> None:
        self.options = options
        self._temporary: tempfile.TemporaryDirectory[str] | None = None  # lives as long as the dataset
        self.folder = self._generated(request)
        self._truth = _read_truth(self.folder)
        self.class_names = tuple(self._truth["classes"])

    def splits(self) -> tuple[str, ...]:
        """Return train, val and test."""
        return SPLITS

    def split(self, name: str) -> Split:
        """Return one split, with the boxes of each bird's parts."""
        prefix = f"{name}/"
        boxes = {key.removeprefix(prefix): b for key, b in self._truth["images"].items() if key.startswith(prefix)}
        keys = sorted(boxes)
        label_of = {class_name: label for label, class_name in enumerate(self.class_names)}
        parts = [{part: cast("tuple[int, int, int, int]", tuple(box)) for part, box in boxes[k].items()} for k in keys]
        return Split(
            name,
            [self.folder / name / key for key in keys],
            [label_of[key.partition("/")[0]] for key in keys],
            keys,
            parts,
            f"drawn (seed {self.options.seed})",
        )

    def deciding_parts(self) -> dict[str, tuple[str, ...]]:
        """Return for each species the parts that alone distinguish it from another one."""
        return {name: tuple(parts) for name, parts in self._truth["deciding_parts"].items()}

    def identity(self) -> dict[str, Any]:
        """Return what determines the images."""
        return {"name": self.name, "drawing": DRAWING_VERSION, **asdict(self.options)}

    def _generated(self, request: DatasetRequest) -> Path:
        """Return the folder of the images, after generating them if necessary."""
        settings = json.dumps(self.identity(), sort_keys=True)
        name = f"{self.name}-{hashlib.sha256(settings.encode()).hexdigest()[:12]}"
        folder = request.cache / name
        if folder.exists():
            return folder
        if not _is_writable(request.cache):
            self._temporary = tempfile.TemporaryDirectory(prefix="fgvc-")
            request.note(f"the cache {request.cache} is not writable; the demo images are generated for this run only")
            folder = Path(self._temporary.name) / name
        counts = {split: getattr(self.options, split) for split in SPLITS}
        try:
            generate(
                folder,
                self.options.seed,
                self.options.size,
                counts,
                lambda done, total: request.progress("generating the demo images", done, total),
                self.species,
                "" if self.species is SPECIES else f"{self.name}/",
            )
        except OSError as error:
            raise FgvcError(
                f"the demo images could not be written to {folder.parent}: {error.strerror or error}; free some space "
                "there, or choose another folder with `cache`"
            ) from error
        return folder


class DemoUnknownDataset(DemoDataset):
    """Images like those of `demo`, of species that it does not have."""

    name = "demo_unknown"
    species = UNKNOWN_SPECIES


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
    report: Callable[[int, int], None] | None = None,
    species: Mapping[str, Traits] = SPECIES,
    prefix: str = "",
) -> None:
    """Write `folder`/<split>/<class>/<nnnn>.png and `folder`/parts.json.

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
        _write(temporary, seed, size, counts, report, species, prefix)
        _move(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write(
    folder: Path,
    seed: int,
    size: int,
    counts: Mapping[str, int],
    report: Callable[[int, int], None] | None,
    species: Mapping[str, Traits],
    prefix: str,
) -> None:
    names = sorted(species)
    total, done = sum(counts.values()) * len(names), 0
    boxes: dict[str, dict[str, Box]] = {}
    for split, count in counts.items():
        for name in names:
            (folder / split / name).mkdir(parents=True)
        for index in range(count * len(names)):
            drawn = draw_image(seed, f"{prefix}{split}", index, size, species)
            path = f"{split}/{names[drawn.label]}/{index // len(names):04d}.png"
            drawn.image.save(folder / path, compress_level=1)
            boxes[path] = drawn.parts
            done += 1
            if report is not None:
                report(done, total)
    truth = {
        "seed": seed,
        "size": size,
        "classes": names,
        "deciding_parts": {name: deciding_parts(name, species) for name in names},
        "images": boxes,
    }
    (folder / "parts.json").write_text(json.dumps(truth) + "\n", encoding="utf-8")


def _move(complete: Path, folder: Path) -> None:
    """Rename `complete` to `folder`, unless the same dataset exists there by now."""
    try:
        complete.rename(folder)
    except OSError as error:
        there = folder / "parts.json"
        if there.is_file() and there.read_bytes() == (complete / "parts.json").read_bytes():
            return
        raise FileExistsError(f"{folder} exists and contains another dataset") from error


def _is_writable(cache: Path) -> bool:
    try:
        cache.mkdir(parents=True, exist_ok=True)
        return os.access(cache, os.W_OK | os.X_OK)
    except OSError:
        return False


def _read_truth(folder: Path) -> dict[str, Any]:
    """Read the ground truth of the images, and check that all images exist."""
    try:
        truth: dict[str, Any] = json.loads((folder / "parts.json").read_text(encoding="utf-8"))
        missing = next((key for key in truth["images"] if not (folder / key).is_file()), None)
    except (OSError, ValueError, KeyError) as error:
        missing = f"parts.json ({error})"
    if missing is not None:
        raise FgvcError(
            f"the demo images in {folder} are damaged: {missing}; delete that folder to generate them again"
        )
    return truth
