"""The datasets `demo` and `demo_unknown`: images of synthetic birds, generated on first use and kept in the cache."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from fgvc_cli.contracts import Dataset, DatasetRequest, Split
from fgvc_cli.errors import FgvcError
from fgvc_datasets.demo.drawing import generate
from fgvc_datasets.demo.species import SPECIES, UNKNOWN_SPECIES, Traits
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
