"""Audit a dataset: from its name to the findings."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fgvc_cli.auditing.copies import Pair, copy_findings, find_pairs, groups, leaks
from fgvc_cli.auditing.findings import PROBLEMS, Audit, Finding
from fgvc_cli.auditing.labels import LEAST_SKILL, HeldOut, LabelError, label_errors, out_of_fold
from fgvc_cli.auditing.photographs import require_packages
from fgvc_cli.auditing.survey import Survey, survey
from fgvc_cli.auditing.unusual import unusual_findings
from fgvc_cli.contracts import Dataset
from fgvc_cli.data.acquisition.check import splits_to_check
from fgvc_cli.data.acquisition.select import ChosenDataset
from fgvc_cli.data.splits import match_classes
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.evaluation.embedding import IMAGE_SIZE, Embedder, of_backbone, of_run
from fgvc_cli.formatting import percent
from fgvc_cli.registry import Registry
from fgvc_cli.scoring.model import InferenceSettings, find_model, load
from fgvc_cli.scoring.scores import score

logger = logging.getLogger(__name__)

DEFAULT_BACKBONE = "efficientnet_lite0"
"""Backbone of the embeddings if none is named and its weights are on this machine."""


@dataclass(frozen=True)
class AuditRequest:
    """What to audit, and with which models.

    Attributes:
        split: name of the only split to audit; None: all.
        run: run folder or model file whose predictions judge the labels of splits it was not trained on; without a
            backbone, its embeddings are used too.
        backbone: name of the backbone of the embeddings; None: the run's, or else `DEFAULT_BACKBONE`.
        weights: of the backbone, as for `fgvc_cli.embed`; None: "imagenet".
        image_size: side of the images for the backbone, in pixels; None: `IMAGE_SIZE`.
        offline: whether downloads are forbidden.
        inference: how to compute.

    Raises:
        UsageError: `weights` or `image_size` are given without `backbone`.
    """

    split: str | None = None
    run: Path | None = None
    backbone: str | None = None
    weights: str | None = None
    image_size: int | None = None
    offline: bool = False
    inference: InferenceSettings = field(default_factory=InferenceSettings)

    def __post_init__(self) -> None:
        for name in ("weights", "image_size"):
            if getattr(self, name) is not None and self.backbone is None:
                raise UsageError(f"`{name}={getattr(self, name)}` is for `backbone`; name one")


def audit_dataset(chosen: ChosenDataset, request: AuditRequest, registry: Registry) -> Audit:
    """Find copies, likely label errors, and odd and unusable images.

    Raises:
        FgvcError: a package of the extra `audit`, images, the run or weights are missing.
        UsageError: there is no such split or backbone.
    """
    require_packages()
    dataset = chosen.open()
    splits = splits_to_check(dataset, request.split)
    if not any(map(len, splits)):
        raise FgvcError(f"{chosen.title} has no images to audit")
    notes: list[str] = []
    embedder = _embedder(request, registry, notes)
    found = survey(dataset, splits, embedder, request.inference.workers)
    pairs = find_pairs(found)
    findings = [*copy_findings(found, pairs), *unusual_findings(found)]
    findings += _label_findings(found, dataset, pairs, request, notes)
    order = list(PROBLEMS)
    findings.sort(key=lambda finding: (order.index(finding.problem), -finding.score))
    return Audit(
        chosen.title,
        {split.name: len(split) for split in splits},
        dataset.class_names,
        findings,
        leaks(found, pairs),
        notes,
        "" if embedder is None else embedder.frozen.description,
    )


def _embedder(request: AuditRequest, registry: Registry, notes: list[str]) -> Embedder | None:
    """Return what computes the embeddings; without, a note says why."""
    if request.backbone is None and request.run is not None:
        return of_run(find_model(request.run), request.inference)
    name, weights = request.backbone or DEFAULT_BACKBONE, request.weights or "imagenet"
    offline = request.offline or request.backbone is None
    try:
        return of_backbone(name, request.image_size or IMAGE_SIZE, weights, request.inference, registry, offline)
    except FgvcError as error:
        if request.backbone is not None:
            raise
        logger.debug(f"no embeddings: {error}")
    notes.append(
        f"Only perceptual hashes and pixels were compared, because the weights of {name} are not on this machine: "
        "cropped copies, wrong labels and odd images are not found. Name a `backbone` or a `run`."
    )
    return None


def _label_findings(
    found: Survey, dataset: Dataset, pairs: Sequence[Pair], request: AuditRequest, notes: list[str]
) -> list[Finding]:
    """Return the likely label errors; those of training images are excluded.

    Excluding what a model finds wrong in a test split would improve its results, right or wrong.
    """
    errors: list[LabelError] = []
    by_run = np.zeros(len(found), dtype=bool)
    if request.run is not None:
        by_run, errors = _errors_by_run(found, dataset, request, notes)
    if request.run is None or request.backbone is not None:
        errors += _errors_by_folds(found, ~by_run, pairs, notes)
    refs, names = found.refs, found.class_names
    return [
        Finding(
            refs[error.position],
            "label",
            1 - error.own,
            f"predicted {names[error.predicted]} ({error.probability:.2f})",
            exclude=refs[error.position].split == "train",
        )
        for error in errors
    ]


def _errors_by_folds(found: Survey, wanted: np.ndarray, pairs: Sequence[Pair], notes: list[str]) -> list[LabelError]:
    if found.embeddings is None:
        return []
    embeddings = np.where(wanted[:, None], found.embeddings, 0)
    held_out = out_of_fold(embeddings, found.labels, groups(len(found), pairs), len(found.class_names))
    unchecked = int((wanted & found.readable).sum()) - len(held_out.indices)
    if not len(held_out.indices):
        notes.append("Labels were not checked: no class has two different images, or there is one class only.")
    elif unchecked:
        notes.append(f"The labels of {unchecked} images were not checked: their classes have no second image.")
    return _judged(held_out, found.labels, "logistic regressions", notes)


def _errors_by_run(
    found: Survey, dataset: Dataset, request: AuditRequest, notes: list[str]
) -> tuple[np.ndarray, list[LabelError]]:
    """Return which images the run judged (bool N), and the likely label errors among them."""
    assert request.run is not None
    model = find_model(request.run)
    ready = load(model, request.inference)
    classes = ready.classifier.class_names
    judged, errors = np.zeros(len(found), dtype=bool), list[LabelError]()
    for number, split in enumerate(found.splits):
        if split.name == "train":
            if request.backbone is None:
                notes.append(
                    "The labels of train were not checked, because the run was trained on them; without a run, or with "
                    "a `backbone` besides, they are."
                )
            continue
        matched = match_classes(split, dataset.class_names, classes, ignore_unknown=True)
        scores = score(ready.classifier, ready.loader(matched), matched, ready.precision, scores=ready.scores)
        position = {key: index for index, key in enumerate(split.keys)}
        start = int(np.flatnonzero(found.split_of == number)[0])
        indices = np.array([start + position[key] for key in scores.keys], dtype=np.int64)
        own = np.array([classes.index(name) if name in classes else -1 for name in dataset.class_names])
        of_run = HeldOut(indices, scores.probabilities)
        back = {theirs: ours for ours, theirs in enumerate(own.tolist()) if theirs >= 0}
        for error in _judged(of_run, own[found.labels], f"the run on {split.name}", notes):
            predicted = back.get(error.predicted)
            if predicted is not None:
                errors.append(error._replace(predicted=predicted))
        judged[indices] = True
    return judged, errors


def _judged(held_out: HeldOut, labels: np.ndarray, by: str, notes: list[str]) -> list[LabelError]:
    """Return the likely label errors, unless the predictions are too poor to judge."""
    if len(np.unique(labels[held_out.indices])) < 2:
        return []
    right = float((held_out.probabilities.argmax(axis=1) == labels[held_out.indices]).mean())
    if held_out.skill(labels) < LEAST_SKILL:
        notes.append(
            f"Labels were not judged by {by}, whose predictions are right for {percent(right)} only; name another "
            "`backbone` or a `run`."
        )
        return []
    notes.append(f"Labels were judged by {by}, whose held-out predictions are right for {percent(right)}.")
    return label_errors(held_out, labels)
