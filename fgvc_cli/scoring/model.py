"""A trained classifier on its device, ready for inference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from fgvc_cli.contracts import Classifier, Split
from fgvc_cli.data.loading import EvaluationLoader, ImageBatch
from fgvc_cli.devices import Precision, is_out_of_memory, loader_workers, pick_device, resolve_precision
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.runs.exported import exporter_of
from fgvc_cli.runs.folder import CONFIG_FILE, EXPORTED, MODEL_FILE, find_run
from fgvc_cli.runs.model_file import load_classifier
from fgvc_cli.scoring.calibration.novelty import ClassMeans, ScoreName, captured_features, logit_scores
from fgvc_cli.scoring.calibration.stored import Calibration, Decisions, find_calibration
from fgvc_cli.scoring.precision import inference_precision
from fgvc_cli.scoring.tta import Views, parse_tta


@dataclass(frozen=True)
class InferenceSettings:
    """Settings of inference.

    Attributes:
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        precision: "auto", "fp32" or "bf16".
        batch_size: number of images in a forward pass.
        workers: number of processes that read images; 0: this one, -1: by device.
        tta: test-time augmentation: any of "flip", "crops" and "sizes", see `Views`.
        calibrated: whether to use the calibration in the model file, if there is one.
    """

    device: str = "auto"
    precision: str = "auto"
    batch_size: int = 32
    workers: int = -1
    tta: str | Sequence[str] | None = None
    calibrated: bool = False


@dataclass(frozen=True)
class ReadyClassifier:
    """A classifier on its device, with the settings of its loaders.

    Attributes:
        classifier: in evaluation mode.
        model_file: where it was loaded from.
        precision: for autocast.
        batch_size, workers: for loaders.
        views: of each image, for `scores`.
        calibration: of the run, for these views; None without.
    """

    classifier: Classifier
    model_file: Path
    precision: Precision
    batch_size: int
    workers: int
    views: Views = field(default_factory=Views)
    calibration: Calibration | None = None

    def loader(self, split: Split) -> EvaluationLoader:
        """Return a loader of a split, preprocessed for this classifier."""
        return EvaluationLoader(
            split,
            self.classifier.preprocessing,
            self.batch_size,
            self.workers,
            pin_memory=self.classifier.device.type == "cuda",
            crops=self.views.crops(self.classifier),
        )

    def scores(self, batch: ImageBatch) -> Tensor:
        """Return the scores B,K (float32) of a batch of its loader; test-time augmentation included."""
        return self.views.scores(self.classifier, batch, self.precision)

    def observe(self, batch: ImageBatch, means: ClassMeans | None = None) -> tuple[Tensor, dict[ScoreName, Tensor]]:
        """Return the scores B,K of a batch, and the novelty scores B of its images; "cosine" with class means."""
        if means is None:
            logits = self.scores(batch)
            return logits, logit_scores(logits)
        logits, features = self.scores_and_features(batch)
        return logits, {"cosine": means.score(features), **logit_scores(logits)}

    def decide(self, batch: ImageBatch) -> Decisions:
        """Return what the calibration decides for a batch."""
        assert self.calibration is not None
        logits, found = self.observe(batch, self.calibration.means)
        probabilities = logits.softmax(dim=1).cpu().numpy()
        return self.calibration.decide(probabilities, {name: values.cpu().numpy() for name, values in found.items()})

    def scores_and_features(self, batch: ImageBatch) -> tuple[Tensor, Tensor]:
        """Return the scores B,K of a batch and the features B,D of its first view; see `captured_features`."""
        with captured_features(self.classifier) as features:
            scores = self.scores(batch)
        return scores, features[0]

    @property
    def run(self) -> Path:
        """Its run folder, or the model file if that is not in one."""
        return run_of(self.model_file)

    @contextmanager
    def memory_explained(self) -> Iterator[None]:
        """If memory runs out, say which settings to lower."""
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise FgvcError(
                f"Out of memory with batches of {self.batch_size} images on {self.classifier.device}; try "
                f"`batch_size={max(1, self.batch_size // 2)}`, or `device=cpu`"
            ) from error


def one_run(named: Sequence[Path]) -> Path | None:
    """Return the only run that was given; None if none was.

    Raises:
        UsageError: different ones were given.
    """
    different = list(dict.fromkeys(named))
    if len(different) > 1:
        listed = ", ".join(map(str, different[:-1])) + f" and {different[-1]}"
        raise UsageError(
            f"{len(different)} runs are given, {listed}: average their predictions (`ensemble=true`), measure their "
            "sharpness (`sharpness=true`), or give one run"
        )
    return different[0] if different else None


def find_models(named: Sequence[Path]) -> list[Path]:
    """Return the model files of runs, or that of the newest finished run if none is given.

    Raises:
        UsageError: a run is given twice, possibly by different paths, or is an exported model.
        FgvcError: a run does not exist.
    """
    models = [find_model(run) for run in named] or [find_model(None)]
    files: set[Path] = set()
    for model in models:
        refuse_exported(model)
        if model.resolve() in files:
            raise UsageError(f"run {run_of(model)} is given twice")
        files.add(model.resolve())
    return models


def find_model(run: Path | None) -> Path:
    """Return the model file of a run folder, a model file itself, or that of the newest finished run for None.

    Raises:
        FgvcError: there is no such run.
    """
    return run if run is not None and run.is_file() else find_run(run).model_file


def run_of(model_file: Path) -> Path:
    """Return the run folder of a model file, or the file itself if it has another name than in a run."""
    return model_file.parent if model_file.name == MODEL_FILE else model_file


def folder_of(model_file: Path) -> Path:
    """Return the folder whose settings name the dataset: that of the file, or the run that it was exported into."""
    folder = model_file.parent
    into_run = folder.name == EXPORTED and (folder.parent / CONFIG_FILE).is_file()
    return folder.parent if into_run else folder


def load(model_file: Path, inference: InferenceSettings, exported: bool = False) -> ReadyClassifier:
    """Load a classifier onto its device.

    Args:
        model_file: of a run, or an exported one.
        inference: the settings.
        exported: whether an exported model will do, which computes scores and has no layers.

    Raises:
        FgvcError: the file is damaged, or a component that it needs is not installed.
        UsageError: this machine has no such device, it does not support the precision, or the model is exported.
    """
    if exporter_of(model_file) is not None:
        if not exported:
            refuse_exported(model_file)
        inference = _on_cpu(inference, model_file)
    device = pick_device(inference.device)
    resolve_precision(inference.precision, device)  # before the file is read
    classifier: Classifier = load_classifier(model_file, device)
    if classifier.backbone.info.channels_last:
        classifier = classifier.to(memory_format=torch.channels_last)
    precision = inference_precision(inference.precision, classifier)
    workers = loader_workers(inference.workers, device)
    views = Views.of(parse_tta(inference.tta), classifier, model_file)
    classes = len(classifier.class_names)
    calibration = find_calibration(model_file, classes, views.names) if inference.calibrated else None
    return ReadyClassifier(classifier, model_file, precision, inference.batch_size, workers, views, calibration)


def refuse_exported(model_file: Path) -> None:
    """Raise `UsageError` if a file is an exported model, where a run is needed."""
    if exporter_of(model_file) is not None:
        raise UsageError(
            f"{model_file} is an exported model, which computes scores and nothing else; give the run that it was "
            "exported from"
        )


def _on_cpu(inference: InferenceSettings, model_file: Path) -> InferenceSettings:
    """Return the settings for an exported model, whose precision is that of the file.

    Raises:
        UsageError: they ask for another device or precision.
    """
    if inference.device not in ("auto", "cpu"):
        raise UsageError(f"`device={inference.device}`: {model_file} is an exported model, which runs on the CPU here")
    if inference.precision not in ("auto", "fp32"):
        raise UsageError(
            f"`precision={inference.precision}`: {model_file} is an exported model, whose precision was chosen by "
            "`fgvc export`"
        )
    return replace(inference, device="cpu", precision="fp32")
