"""Calibrate a run: learn from held-out images when it should not answer, and keep that in its model file."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from fgvc_cli import files, viz
from fgvc_cli.contracts import Split
from fgvc_cli.data.splits import balanced_indices, quoted_names, subset
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.evaluation.calibration_fit import CalibrationSettings, Fit
from fgvc_cli.evaluation.split_selection import SelectedSplit, SplitRequest, select_split
from fgvc_cli.evaluation.training_history import count_trained, notes_of_runs
from fgvc_cli.progress import progress
from fgvc_cli.registry import Registry, get_registry
from fgvc_cli.scoring.calibration.novelty import ClassMeans, ScoreName
from fgvc_cli.scoring.calibration.selective import OperatingPoint, coverage_curve, operating_points
from fgvc_cli.scoring.calibration.stored import Calibration
from fgvc_cli.scoring.model import InferenceSettings, ReadyClassifier, find_model, load
from fgvc_cli.scoring.observation import Observation
from fgvc_cli.scoring.results import dataset_record
from fgvc_cli.scoring.scores import evaluating
from fgvc_cli.scoring.scores import score as score_split
from fgvc_cli.scoring.tta import Views

logger = logging.getLogger(__name__)

FOLDER = "calibration"
"""The folder for the files, in that of the model file."""
MEAN_IMAGES = 25
"""Average number of training images per class, at most, from which the class means are computed."""


@dataclass(frozen=True)
class CalibrationSummary:
    """Result of a calibration: what the model file got, and figures of the calibration images.

    Attributes:
        run: the run folder or model file.
        calibration: what the model file got.
        origin: where the split comes from.
        top1: top-1 accuracy.
        loss, calibration_error: before and after temperature scaling: mean cross entropy in nats, and expected
            calibration error.
        points: precision by fraction of the images answered; of the images that are not unfamiliar.
        notes: what a user should know.
        failures: why an image could not be read, by its key.
    """

    run: str
    calibration: Calibration
    origin: str
    top1: float
    loss: tuple[float, float]
    calibration_error: tuple[float, float]
    points: Sequence[OperatingPoint]
    notes: Sequence[str] = ()
    failures: Mapping[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return the form that `summary.json` has."""
        return {
            "run": self.run,
            "origin": self.origin,
            "notes": list(self.notes),
            "top1": self.top1,
            "loss": dict(zip(("before", "after"), self.loss, strict=True)),
            "calibration_error": dict(zip(("before", "after"), self.calibration_error, strict=True)),
            "calibration": self.calibration.as_json(),
            "points": [asdict(point) for point in self.points],
            "failures": [{"key": key, "reason": reason} for key, reason in self.failures.items()],
        }


@dataclass(frozen=True)
class CalibrationResult:
    """The summary of a calibration, and the files written, the model file last."""

    summary: CalibrationSummary
    files: Sequence[Path]


def calibrate(
    run: str | PathLike[str],
    split: str | None = None,
    *,
    data: str | PathLike[str] | None = None,
    dataset: str | None = None,
    exclude: str | PathLike[str] | None = None,
    ignore_unknown: bool = False,
    allow_changed_data: bool = False,
    precision: float | None = None,
    confidence: float = 0.95,
    coverage: float | None = None,
    by_class: bool = False,
    score: ScoreName | Literal["none"] | None = None,
    keep: float | None = None,
    device: str = "auto",
    batch_size: int = 32,
    workers: int = -1,
    tta: str | Sequence[str] | None = None,
) -> CalibrationSummary:
    """Learn from validation images when a run should not answer, as `fgvc calibrate` does.

        fgvc.calibrate(run, precision=0.95).calibration.temperature

    The result is kept in the model file, where predictions and evaluations find it.

    Args:
        run: a run, its folder, or a `model.safetensors`.
        split: its name; the default is "val".
        data: other images: a folder of class folders, or a CSV or TSV file; classes are matched by name.
        dataset: another dataset, by name.
        exclude: CSV file of images to leave out, such as that of `fgvc_cli.audit`.
        ignore_unknown: skip images of classes that the classifier does not know.
        allow_changed_data: use the run's own dataset even if it changed since training.
        precision: of the answers, to promise; None: answer whatever the probability.
        confidence: confidence level of that promise.
        coverage: of prediction sets, to promise; the default is 0.9.
        by_class: promise the coverage for each class.
        score: how to find unfamiliar images: "cosine", "max_logit", "energy", "probability" or "none"; the default is
            the first that is available.
        keep: fraction of images of known classes that are not rejected as unfamiliar; the default is 0.95.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        batch_size: images per forward pass.
        workers: processes that load images; -1 chooses by device.
        tta: test-time augmentation that predictions will use.

    Raises:
        UsageError: there is no such split, it was trained on, or a value is wrong (also a `ValueError`).
        FgvcError: the run or the images are missing, or there are too few of them for a promise.
    """
    request = SplitRequest(
        split,
        None if data is None else Path(data),
        dataset,
        ignore_unknown=ignore_unknown,
        allow_changed_data=allow_changed_data,
        exclude=None if exclude is None else Path(exclude),
    )
    settings = CalibrationSettings(precision, confidence, coverage, by_class, score, keep)
    inference = InferenceSettings(device, "auto", batch_size, workers, tta)
    return calibrate_run(find_model(Path(run)), get_registry(), settings, request, inference).summary


def calibrate_run(
    model_file: Path,
    registry: Registry,
    settings: CalibrationSettings,
    request: SplitRequest,
    inference: InferenceSettings,
) -> CalibrationResult:
    """Calibrate a run, and write the calibration into its model file and figures to the folder `calibration`.

    Args:
        model_file: of the run.
        registry: resolves datasets.
        settings: what to promise.
        request: the images; without a split, the validation split.
        inference: device, precision, batch size and test-time augmentation, for which alone the calibration is valid.

    Raises:
        UsageError: there is no such split, or it was trained on.
        FgvcError: there are no validation images, too few for a promise that was asked for, or the promise cannot be
            kept; the images cannot be read, memory runs out, or the files cannot be written.
    """
    ready = load(model_file, replace(inference, calibrated=False))
    selected = _select(request, ready, registry)
    notes = [*selected.notes, *([ready.views.note] if ready.views.note else [])]
    if not selected.is_own:
        notes += notes_of_runs([("the run", model_file.parent)], selected.split, registry)
    for line in (selected.description, *notes):
        logger.info(line)
    means = _class_means(ready, request, settings.score, registry)
    observation = Observation(ready, means, keep_logits=True)
    split = selected.split
    with progress(split.name, len(split)) as bar, ready.memory_explained():
        scores = score_split(ready.classifier, ready.loader(split), split, ready.precision, bar.advance, observation)
    if not (scores.predicted >= 0).any():
        raise FgvcError(f"none of the {len(split)} images of {selected.dataset} ({split.name}) has finite scores")
    fitted = Fit(scores, observation, settings, ready.classifier.class_names)
    calibration = replace(fitted.calibration, means=means, split=split.name, tta=ready.views.names,
                          dataset=dataset_record(selected.dataset, selected.data))  # fmt: skip
    summary = CalibrationSummary(
        str(ready.run),
        calibration,
        split.origin,
        float(fitted.correct.mean()),
        fitted.losses,
        fitted.errors,
        operating_points(fitted.confidence[fitted.familiar], fitted.correct[fitted.familiar]),
        (*notes, *fitted.notes),
        scores.failures,
    )
    for note in fitted.notes:
        logger.warning(note)
    return CalibrationResult(summary, _write(model_file, summary, fitted))


def _select(request: SplitRequest, ready: ReadyClassifier, registry: Registry) -> SelectedSplit:
    """Select the validation split unless another is requested, and refuse one that was trained on.

    Raises:
        UsageError, FgvcError: see `calibrate_run`.
    """
    names = ready.classifier.class_names
    selected = select_split(replace(request, prefer_validation=True), ready.model_file.parent, names, registry)
    split, trained = selected.split, len(selected.split) * (selected.role == "trained")
    if not selected.is_own:
        trained = count_trained(ready.model_file, split, names, registry)
    if trained:
        what = f"split={split.name}" if selected.is_own else f"data={selected.data}" if selected.data else ""
        raise UsageError(
            f"`{what or f'dataset={selected.dataset}'}`: the run was trained on {trained} of these {len(split)} "
            "images, and is surer of them than of others; calibrate on images that it has not seen (`split`, `data`)"
        )
    return selected


def _class_means(
    ready: ReadyClassifier, request: SplitRequest, wished: str | None, registry: Registry
) -> ClassMeans | None:
    """Compute the class means of the training images' features; None if they are not wanted or not available.

    Raises:
        FgvcError: the score "cosine" is wished, but the training images are not available.
    """
    if wished not in (None, "cosine"):
        return None
    try:
        return _means_of(ready, _training_images(ready, request, registry))
    except (FgvcError, UsageError) as error:
        if wished is not None:
            raise FgvcError(f"`score=cosine` needs the training images: {error}") from error
        logger.warning(f"without the score cosine, which needs the training images: {error}")
        return None


def _training_images(ready: ReadyClassifier, request: SplitRequest, registry: Registry) -> Split:
    own = SplitRequest(
        prefer_training=True,
        options=request.options if request.is_own else {},
        allow_changed_data=request.allow_changed_data,
    )
    names = ready.classifier.class_names
    split = select_split(own, ready.model_file.parent, names, registry).split
    if missing := sorted(set(range(len(names))) - set(split.labels)):
        raise FgvcError(f"there are none of {quoted_names([names[i] for i in missing])}")
    chosen = balanced_indices(split.labels, MEAN_IMAGES * len(names))
    return subset(split, chosen, split.name, split.origin)


def _means_of(ready: ReadyClassifier, split: Split) -> ClassMeans:
    classifier, plain = ready.classifier, replace(ready, views=Views())
    features, labels = [], []
    with progress(f"class means of {split.name}", len(split)) as bar, evaluating(classifier), ready.memory_explained():
        for batch in plain.loader(split):
            features.append(plain.scores_and_features(batch)[1])
            labels.append(batch.labels)
            bar.advance(len(batch.labels))
        found = torch.cat(labels) if labels else torch.empty(0, dtype=torch.int64)
        names = classifier.class_names
        if missing := sorted(set(range(len(names))) - set(found.tolist())):
            raise FgvcError(f"none of {quoted_names([names[i] for i in missing])} can be read")
        of = ClassMeans.of(torch.cat(features), found.to(features[0].device), len(names))
    return ClassMeans(of.center.cpu().clone(), of.means.cpu().clone())


def _write(model_file: Path, summary: CalibrationSummary, fitted: Fit) -> list[Path]:
    """Write the curve, the summary and, last, the calibration into the model file; return the paths."""
    folder = model_file.parent / FOLDER
    written = [folder / "coverage.csv", folder / "coverage.png", folder / "summary.json"]
    confidence, correct = fitted.confidence[fitted.familiar], fitted.correct[fitted.familiar]
    answered, precision = coverage_curve(confidence, correct)
    rows = zip(np.sort(confidence)[::-1].tolist(), answered.tolist(), precision.tolist(), strict=True)
    files.write_csv(written[0], ["probability", "answered", "precision"], ([f"{v:.6f}" for v in row] for row in rows))
    rule = summary.calibration.precision
    share = None if rule is None else float((confidence > rule.threshold).mean())
    promised = None if rule is None or share is None else (share, rule.precision)
    viz.coverage_precision(written[1], answered, precision, promised, f"{len(fitted)} images")
    files.write_json(written[2], summary.as_json())
    summary.calibration.write(model_file)
    return [*written, model_file]
