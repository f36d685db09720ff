"""A finished run and its evaluation, as a comparison needs them."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np

from fgvc_cli.config.renamed import current_document
from fgvc_cli.data.identity import DataIdentity
from fgvc_cli.errors import FgvcError
from fgvc_cli.registry import get_registry
from fgvc_cli.runs.folder import Run
from fgvc_cli.runs.results import TrainingSummary
from fgvc_cli.scoring.results import PREDICTIONS, SUMMARY, EvaluationSummary, read_predictions
from fgvc_cli.specs import HeadSpec

NO_OPTIMIZER = "none"


@dataclass(frozen=True)
class ComparedRun:
    """A finished run and its evaluation on one split.

    Attributes:
        config: settings by section, as in `config.toml`.
        optimizer: name, with that of its base: `sam over sgd`; "none" for a head that is fitted at once.
        minutes: training time, over all resumptions.
        images_per_second: training throughput, the median over the epochs; None without epochs.
        parameters: numbers of "backbone", "head" and "total".
        device, version: of the training; the version is that of fgvc.
        dataset, data: name of the dataset, and its folder or file.
        correct: whether each image was classified correctly, by key.
        images_id: hash of the image keys and the class names; runs can be compared by image where it is equal.
        trained_on: identity of the training data; None if an older version of fgvc trained the run.
        dataset_record: what the summary records of the dataset, without its path.
        fold, folds: fold that it is evaluated on, from 1, and their number; 0 without, or on other images.
    """

    run: Run
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
    dataset: str
    data: str
    notes: list[str]
    correct: Mapping[str, bool]
    images_id: str
    trained_on: DataIdentity | None = None
    dataset_record: Mapping[str, Any] = field(default_factory=dict)
    fold: int = 0
    folds: int = 0

    @classmethod
    def of(
        cls,
        run: Run,
        config: Mapping[str, Any],
        evaluation: EvaluationSummary,
        correct: Mapping[str, bool],
        evaluation_file: Path,
        summary: TrainingSummary | None = None,
    ) -> ComparedRun:
        """Collect what a comparison needs of a run; `summary` of the training defaults to that in its folder.

        Raises:
            FgvcError: a value of the summary or the evaluation is missing or invalid.
        """
        training = run.summary if summary is None else summary
        components = training.components
        train = config.get("train", {}) if evaluation.split == "val" else {}
        fold, folds = train.get("fold", 0), train.get("folds", 0)
        of_training = _checked(
            run.summary_file,
            "restore it, or train again",
            backbone=lambda: str(components["backbone"]["name"]),
            head=lambda: str(components["head"]["name"]),
            optimizer=lambda: optimizer_title(components),
            seed=lambda: int(training.seed),
            minutes=lambda: training.seconds / 60,
            images_per_second=lambda: training.images_per_second,
            parameters=lambda: {part: int(training.parameters[part]) for part in ("backbone", "head", "total")},
            device=lambda: training.device,
            version=lambda: str(training.versions["fgvc-cli"]),
            trained_on=lambda: None if training.data is None else DataIdentity.from_json(training.data),
            dataset_record=lambda: {k: v for k, v in training.dataset.items() if k not in ("folder", "file")},
        )
        of_evaluation = _checked(
            evaluation_file,
            "delete it to evaluate again",
            top1=lambda: float(evaluation.top1),  # type: ignore[arg-type]  # None is refused like text
            dataset=lambda: str(evaluation.dataset["name"]),
            data=lambda: str(evaluation.dataset["data"]),
            notes=lambda: list(evaluation.notes),
            images_id=lambda: (
                _folds_id(train)
                if fold
                else _images_id([*correct, *evaluation.failures], [row.name for row in evaluation.per_class])
            ),
        )
        facts: dict[str, Any] = {**of_training, **of_evaluation, "fold": fold, "folds": folds}
        return cls(run=run, config=config, evaluation=evaluation, correct=correct, **facts)

    @cached_property
    def images_text(self) -> str:
        """A description of the images: "test of demo, drawn (seed 0): 300 images, 12 classes"."""
        return f"{self.evaluation.images_text}: {self.evaluation.images} images, {self.evaluation.classes} classes"

    def correct_at(self, keys: Sequence[str]) -> np.ndarray:
        """Return whether the images with N keys were classified correctly: bool N."""
        return np.array([self.correct[key] for key in keys], dtype=bool)


def read_run(run: Run, evaluation: Path) -> ComparedRun:
    """Read a finished run and the evaluation in a folder.

    Raises:
        FgvcError: a file is missing or damaged, or the evaluation's files do not match.
    """
    try:
        config = current_document(tomllib.loads(run.config_file.read_text(encoding="utf-8-sig")))
    except (OSError, ValueError) as error:
        raise FgvcError(f"{run.config_file} cannot be read ({error}); restore it, or leave the run out") from error
    settings = {section: table for section, table in config.items() if isinstance(table, dict)}
    scored = EvaluationSummary.read(evaluation / SUMMARY)
    correct = {prediction.key: prediction.is_right for prediction in read_predictions(evaluation / PREDICTIONS)}
    found = ComparedRun.of(run, settings, scored, correct, evaluation / SUMMARY)
    right = sum(correct.values())
    if len(correct) != scored.images or abs(right - found.top1 * len(correct)) > 0.5:
        raise FgvcError(
            f"{evaluation / PREDICTIONS} does not match {SUMMARY} in the same folder: {right} of {len(correct)} images "
            "are correct in it; delete both to evaluate again"
        )
    return found


def _checked(file: Path, remedy: str, **values: Callable[[], Any]) -> dict[str, Any]:
    """Return values computed from the content of a file.

    Raises:
        FgvcError: one of them cannot be computed.
    """
    found = {}
    for name, value in values.items():
        try:
            found[name] = value()
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            what = name.replace("_", " ")
            raise FgvcError(f"{file} is damaged: its {what} is missing or invalid; {remedy}") from error
    return found


def optimizer_title(components: Mapping[str, Any]) -> str:
    """Return the name of the optimizer in the record of a run's components, with that of its base: "sam over sgd".

    It is "none" if the head is fitted at once.
    """
    head, optimizer = components["head"], components["optimizer"]
    with suppress(FgvcError):  # its plugin is no longer installed
        if cast(HeadSpec, get_registry().find("head", f"{head['distribution']}:{head['name']}").spec).fitted:
            return NO_OPTIMIZER
    base = f" over {optimizer['base']['name']}" if "base" in optimizer else ""
    return f"{optimizer['name']}{base}"


def _folds_id(train: Mapping[str, Any]) -> str:
    """Return what the folds of a dataset follow from; the fold of a run is one of them."""
    seed = train.get("val_seed", "none")
    drawn_by = [train.get(name) for name in ("folds", "group_by", "exclude")]
    return json.dumps([*drawn_by, train.get("seed") if seed == "none" else seed])


def _images_id(keys: Iterable[str], classes: Iterable[str]) -> str:
    return hashlib.sha256("\0".join([*sorted(keys), "", *sorted(classes)]).encode()).hexdigest()
