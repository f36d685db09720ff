"""A finished run and its evaluation, as a comparison needs them."""

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

from fgvc_cli import files
from fgvc_cli.errors import FgvcError
from fgvc_cli.runs.folder import RunFolder
from fgvc_cli.runs.results import TrainingSummary
from fgvc_cli.scoring.results import PREDICTIONS, SUMMARY, EvaluationSummary


@dataclass(frozen=True)
class ComparedRun:
    """A finished run and its evaluation on one split.

    Attributes:
        run: its folder.
        config: its settings by section, as in `config.toml`.
        backbone, head: names.
        optimizer: name, with that of its base: `sam over sgd`.
        seed: of the training.
        minutes: training time, over all resumptions.
        images_per_second: training throughput, the median over the epochs; None without epochs.
        parameters: numbers of "backbone", "head" and "total".
        device: it was trained on.
        version: of fgvc, at training.
        evaluation: its metrics on the split.
        top1: fraction of images classified correctly.
        correct: whether each image was classified correctly, by key.
        images_id: hash of the image keys and the class names; runs can be compared by image where it is equal.
    """

    run: RunFolder
    config: Mapping[str, Any]
    backbone: str
    head: str
    optimizer: str
    seed: int
    minutes: float
    images_per_second: float | None
    parameters: dict[str, int]
    device: str
    version: str
    evaluation: EvaluationSummary
    top1: float
    correct: Mapping[str, bool]
    images_id: str

    @classmethod
    def of(
        cls,
        run: RunFolder,
        config: Mapping[str, Any],
        summary: TrainingSummary,
        evaluation: EvaluationSummary,
        correct: Mapping[str, bool],
    ) -> ComparedRun:
        """Collect what a comparison needs of a run.

        Raises:
            KeyError, TypeError, ValueError: a value is missing or invalid.
        """
        components = summary.components
        optimizer = components["optimizer"]
        keys = sorted([*correct, *evaluation.failures])
        classes = sorted(row.name for row in evaluation.per_class)
        return cls(
            run=run,
            config=config,
            backbone=str(components["backbone"]["name"]),
            head=str(components["head"]["name"]),
            optimizer=f"{optimizer['name']} over {optimizer['base']['name']}"
            if "base" in optimizer
            else str(optimizer["name"]),
            seed=int(summary.seed),
            minutes=summary.seconds / 60,
            images_per_second=summary.images_per_second,
            parameters={part: int(summary.parameters[part]) for part in ("backbone", "head", "total")},
            device=summary.device,
            version=str(summary.versions["fgvc-cli"]),
            evaluation=evaluation,
            top1=float(evaluation.top1),  # type: ignore[arg-type]  # None is refused like text
            correct=correct,
            images_id=hashlib.sha256("\0".join([*keys, "", *classes]).encode()).hexdigest(),
        )

    @cached_property
    def images_text(self) -> str:
        """The images in one phrase: "test of demo, drawn (seed 0): 300 images, 12 classes"."""
        return f"{self.evaluation.images_text}: {self.evaluation.images} images, {self.evaluation.classes} classes"

    def correct_at(self, keys: Sequence[str]) -> np.ndarray:
        """Return whether the images with N keys were classified correctly: bool N."""
        return np.array([self.correct[key] for key in keys], dtype=bool)


def read_run(run: RunFolder, evaluation: Path) -> ComparedRun:
    """Read a finished run and its evaluation.

    Args:
        run: the run.
        evaluation: folder of the evaluation.

    Raises:
        FgvcError: a file is missing or damaged, or the evaluation's files do not match.
    """
    try:
        config = tomllib.loads(run.config_file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FgvcError(f"{run.config_file} cannot be read ({error}); restore it, or leave the run out") from error
    settings = {section: table for section, table in config.items() if isinstance(table, dict)}
    summary, scored = run.summary, EvaluationSummary.read(evaluation / SUMMARY)
    correct = _read_correct(evaluation / PREDICTIONS)
    try:
        found = ComparedRun.of(run, settings, summary, scored, correct)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        files_ = f"{run.summary_file} or {evaluation / SUMMARY}"
        raise FgvcError(
            f"{files_} is damaged: a value is missing or invalid ({error}); evaluate or train again"
        ) from error
    right = sum(correct.values())
    if len(correct) != scored.images or abs(right - found.top1 * len(correct)) > 0.5:
        raise FgvcError(
            f"{evaluation / PREDICTIONS} does not match {SUMMARY} in the same folder: {right} of {len(correct)} images "
            "are correct in it; delete both to evaluate again"
        )
    return found


def _read_correct(path: Path) -> dict[str, bool]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = csv.DictReader(file)
            if missing := {"key", "correct"} - set(rows.fieldnames or ()):
                raise ValueError(f"column '{min(missing)}' is missing")
            return {row["key"]: row["correct"] == "1" for row in rows}
    except (OSError, ValueError, csv.Error) as error:
        raise FgvcError(f"{path} cannot be read ({error}). {files.MADE_AGAIN}") from error
