"""One finished run as a comparison sees it: what it was set to, what it reached, and what it said of each image."""

from __future__ import annotations

import csv
import hashlib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fgvc_cli.errors import FgvcError
from fgvc_cli.runs import files
from fgvc_cli.runs.folder import RunFolder

PREDICTIONS, SUMMARY = "predictions.csv", "summary.json"


@dataclass(frozen=True)
class ComparedRun:
    """A finished run and its evaluation on one split.

    Attributes:
        run: its folder.
        config: its settings by section, as in `config.toml`.
        summary: what its `summary.json` holds.
        evaluation: what the `summary.json` of the evaluation holds.
        correct: whether each image was classified rightly, by key.
    """

    run: RunFolder
    config: Mapping[str, Any]
    summary: Mapping[str, Any]
    evaluation: Mapping[str, Any]
    correct: Mapping[str, bool]

    @property
    def backbone(self) -> str:
        """The backbone's name."""
        return str(self.summary["components"]["backbone"]["name"])

    @property
    def head(self) -> str:
        """The head's name."""
        return str(self.summary["components"]["head"]["name"])

    @property
    def optimizer(self) -> str:
        """The optimizer's name, and what it is built over: `sam over sgd`."""
        component = self.summary["components"]["optimizer"]
        return f"{component['name']} over {component['base']['name']}" if "base" in component else component["name"]

    @property
    def seed(self) -> int:
        """Of weights, order, augmentation and dropout."""
        return int(self.summary["seed"])

    @cached_property
    def images(self) -> str:
        """What images it was evaluated on, and into which classes: equal for runs that can be compared by image."""
        keys = sorted([*self.correct, *(failure["key"] for failure in self.evaluation["failures"])])
        classes = sorted(row["class"] for row in self.evaluation["per_class"])
        return hashlib.sha256("\0".join([*keys, "", *classes]).encode()).hexdigest()

    def correct_at(self, keys: Sequence[str]) -> np.ndarray:
        """Return whether the images with those keys, N, were classified rightly: bool N."""
        return np.array([self.correct[key] for key in keys], dtype=bool)


def read_run(run: RunFolder, evaluation: Path) -> ComparedRun:
    """Read a finished run, and the folder of its evaluation.

    Raises:
        FgvcError: a file is missing or damaged.
    """
    try:
        config = tomllib.loads(run.config_file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FgvcError(f"{run.config_file} cannot be read ({error}): restore it, or leave the run out.") from error
    summary, evaluated = run.summary(), files.read_json(evaluation / SUMMARY)
    found = ComparedRun(run, config, summary, evaluated, _correct(evaluation / PREDICTIONS))
    try:
        _ = found.backbone, found.head, found.optimizer, found.seed, found.images, evaluated["top1"]
    except (KeyError, TypeError) as error:
        raise FgvcError(
            f"{run.path} is damaged: a summary lacks {error}. Evaluate it again (fgvc evaluate {run.path}), or leave "
            "it out."
        ) from error
    return found


def _correct(path: Path) -> dict[str, bool]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = csv.DictReader(file)
            if missing := {"key", "correct"} - set(rows.fieldnames or ()):
                raise ValueError(f"it has no column {min(missing)}")
            return {row["key"]: row["correct"] == "1" for row in rows}
    except (OSError, ValueError, csv.Error) as error:
        raise FgvcError(f"{path} cannot be read ({error}): fgvc evaluate writes it anew.") from error
