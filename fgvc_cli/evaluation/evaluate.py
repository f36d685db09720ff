"""Evaluate a run on a split of its dataset or on other images."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fgvc_cli.contracts import Split
from fgvc_cli.errors import FgvcError
from fgvc_cli.evaluation.answers import UNKNOWN_ANSWERS, decide, score_unknown, unknown_images, write_answers
from fgvc_cli.evaluation.split_selection import SelectedSplit, SplitRequest, results_folder, select_split
from fgvc_cli.progress import progress
from fgvc_cli.registry import Registry
from fgvc_cli.runs.exported import is_exported
from fgvc_cli.scoring import results
from fgvc_cli.scoring.calibration.metrics import CalibratedMetrics
from fgvc_cli.scoring.model import InferenceSettings, ReadyClassifier, folder_of, load
from fgvc_cli.scoring.observation import Observation
from fgvc_cli.scoring.results import EvaluationSummary, dataset_record, summarize
from fgvc_cli.scoring.scores import score
from fgvc_cli.scoring.taxonomy import TaxonomySettings, find_tree, taxonomy_metrics

logger = logging.getLogger(__name__)

OWN_IMAGES = "The run was calibrated on these images: its calibrated metrics are too good for others."


@dataclass(frozen=True)
class Evaluation:
    """The metrics of an evaluation, and the files written, the summary last."""

    summary: EvaluationSummary
    files: Sequence[Path]

    @property
    def folder(self) -> Path:
        """The folder of the files."""
        return self.files[-1].parent

    @property
    def top1(self) -> float | None:
        """Top-1 accuracy."""
        return self.summary.top1


def evaluate_run(
    model_file: Path,
    registry: Registry,
    split: SplitRequest | None = None,
    inference: InferenceSettings | None = None,
    out: Path | None = None,
    force: bool = False,
    taxonomy: TaxonomySettings | None = None,
    unknown: str | None = None,
) -> Evaluation:
    """Score a run on a split and write the results.

    Args:
        model_file: of the run.
        registry: resolves datasets.
        split: the images; default: the test split of the run's dataset.
        inference: device, precision and batch size.
        out: folder for the results; default: `evaluation/SPLIT` in the run, with test-time augmentation
            `evaluation/SPLIT-flip` or the like; for an exported model `evaluation/NAME.onnx/SPLIT` beside it.
        force: whether `out` may exist.
        taxonomy: groups of the classes; default: those in the model file, if any.
        unknown: folder or dataset of images of unknown classes, see `unknown_images`.

    Raises:
        UsageError: the split does not exist, or `out` exists; the unknown images do not exist or are known.
        FgvcError: the model or the images are missing or cannot be read, memory runs out, or the results cannot be
            written.
    """
    ready = load(model_file, inference or InferenceSettings(), exported=True)
    class_names = ready.classifier.class_names
    strangers = None if unknown is None else unknown_images(unknown, class_names, registry)
    selected = select_split(split or SplitRequest(), folder_of(model_file), class_names, registry)
    what = f"evaluation/{model_file.name}" if is_exported(ready.classifier) else "evaluation"
    folder = results_folder(model_file.parent, selected, out, force, what, ready.views.names)
    for line in filter(None, (selected.description, *selected.notes, ready.views.note)):
        logger.info(line)
    if ready.calibration is not None:
        for line in ready.calibration.lines:
            logger.info(line)
    return evaluate(ready, selected, folder, taxonomy=taxonomy, unknown=strangers)


def evaluate(
    ready: ReadyClassifier,
    selected: SelectedSplit,
    folder: Path,
    label: str | None = None,
    taxonomy: TaxonomySettings | None = None,
    unknown: Split | None = None,
) -> Evaluation:
    """Score a classifier on images and write the results to a folder; `label` is that of the progress.

    With `unknown`, images of unknown classes are scored too.

    Raises:
        FgvcError: no image can be read, memory runs out, or the results cannot be written.
    """
    split, class_names = selected.split, ready.classifier.class_names
    notes = [*selected.notes, *([ready.views.note] if ready.views.note else [])]
    if ready.calibration is not None and ready.calibration.is_of(
        dataset_record(selected.dataset, selected.data), split.name
    ):
        notes.append(OWN_IMAGES)
        logger.info(OWN_IMAGES)
    groups = taxonomy or TaxonomySettings()
    tree = find_tree(ready.model_file, class_names, groups, selected.opened)
    with progress(label or split.name, len(split)) as bar, ready.memory_explained():
        observation = Observation(ready, None if ready.calibration is None else ready.calibration.means)
        scores = score(ready.classifier, ready.loader(split), split, ready.precision, bar.advance, observation)
    if not len(scores):
        raise FgvcError(f"none of the {len(split)} images of {selected.dataset} ({split.name}) can be read")
    decisions, written = decide(ready, scores, observation.scores), []
    calibrated = None if decisions is None else decisions.probabilities
    summary = summarize(
        scores,
        class_names,
        split,
        runs=[ready.run],
        dataset=selected.dataset,
        data=selected.data,
        device=ready.classifier.device,
        precision=ready.precision,
        notes=notes,
        preprocessing=ready.classifier.preprocessing,
        tta=ready.views.names,
        taxonomy=None if tree is None else taxonomy_metrics(scores, tree, groups.threshold, calibrated),
    )
    if ready.calibration is not None and decisions is not None:
        summary = replace(summary, calibrated=CalibratedMetrics.of(ready.calibration, decisions, scores))
    written += write_answers(folder, scores, decisions, class_names)
    if unknown is not None:
        metrics, file = score_unknown(ready, unknown, observation.scores, folder)
        summary = replace(summary, unknown=metrics)
        written.append(file)
    else:
        (folder / UNKNOWN_ANSWERS).unlink(missing_ok=True)
    return Evaluation(summary, [*written, *results.write(folder, summary, scores, class_names)])
