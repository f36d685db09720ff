"""The demo dataset: birds that are drawn when it is first used, and kept in the cache."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from fgvc_cli.contracts import Dataset, DatasetRequest, Split
from fgvc_cli.errors import FgvcError
from fgvc_datasets.demo.generate import generate
from fgvc_datasets.demo.options import DemoOptions

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
