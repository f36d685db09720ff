"""X"""

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
from fgvc_datasets.demo.species import CLASS_NAMES, SPECIES, deciding_parts
from fgvc_datasets.options import DemoOptions

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


DRAWING_VERSION = 1
"""Grows when the drawing changes, so that pictures of an older version in the cache are not taken for new ones."""

SPLITS = ("train", "val", "test")


class DemoDataset(Dataset):
    """Drawn images whose classes differ in small parts, and which know where those parts are.

    The pictures follow from the options alone, not from the seed of the training.

    Raises:
        FgvcError: what the cache holds is damaged, or there is no space to draw into.
    """

    name = "demo"

    def __init__(self, request: DatasetRequest, options: DemoOptions) -> None:
        self.options = options
        self._temporary: tempfile.TemporaryDirectory[str] | None = None  # lives as long as the dataset
        self.folder = self._drawn(request)
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
        """Return for each species the parts that alone tell it from another one."""
        return {name: tuple(parts) for name, parts in self._truth["deciding_parts"].items()}

    def identity(self) -> dict[str, Any]:
        """Return what determines the pictures."""
        return {"name": self.name, "drawing": DRAWING_VERSION, **asdict(self.options)}

    def _drawn(self, request: DatasetRequest) -> Path:
        """Return the folder that holds the pictures, after drawing them if they are not there."""
        settings = json.dumps(self.identity(), sort_keys=True)
        name = f"demo-{hashlib.sha256(settings.encode()).hexdigest()[:12]}"
        kept = request.cache / name
        if kept.exists():
            return kept
        if not _can_write(request.cache):
            self._temporary = tempfile.TemporaryDirectory(prefix="fgvc-")
            request.note(f"The cache {request.cache} cannot be written: the demo images are drawn for this run alone.")
            kept = Path(self._temporary.name) / name
        counts = {split: getattr(self.options, split) for split in SPLITS}
        try:
            generate(
                kept,
                self.options.seed,
                self.options.size,
                counts,
                lambda done, total: request.progress("drawing the demo images", done, total),
            )
        except OSError as error:
            raise FgvcError(
                f"The demo images could not be drawn into {kept.parent}: {error.strerror or error}. "
                "Free some space there, or name another place with --cache."
            ) from error
        return kept


def _can_write(cache: Path) -> bool:
    try:
        cache.mkdir(parents=True, exist_ok=True)
        return os.access(cache, os.W_OK | os.X_OK)
    except OSError:
        return False


def _read_truth(folder: Path) -> dict[str, Any]:
    """Read what the drawing wrote about its pictures, and check that they are all there."""
    try:
        truth: dict[str, Any] = json.loads((folder / "parts.json").read_text(encoding="utf-8"))
        missing = next((key for key in truth["images"] if not (folder / key).is_file()), None)
    except (OSError, ValueError, KeyError) as error:
        missing = f"parts.json ({error})"
    if missing is not None:
        raise FgvcError(f"The demo images in {folder} are damaged: {missing}. Delete that folder to have them redrawn.")
    return truth
