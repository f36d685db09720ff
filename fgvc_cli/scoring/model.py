"""A trained classifier on its device, ready for inference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from fgvc_cli.contracts import Classifier, Split
from fgvc_cli.data.loading import EvaluationLoader
from fgvc_cli.devices import Precision, is_out_of_memory, loader_workers, pick_device, resolve_precision
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.runs.folder import MODEL_FILE, find_run
from fgvc_cli.runs.model_file import load_classifier


@dataclass(frozen=True)
class Computing:
    """How a person wants images to be read and classified.

    Attributes:
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        precision: "auto", "fp32" or "bf16".
        batch_size: images in a forward pass.
        workers: processes that read images; 0 reads in this one, -1 chooses by device.
    """

    device: str = "auto"
    precision: str = "auto"
    batch_size: int = 32
    workers: int = -1


@dataclass(frozen=True)
class ReadyClassifier:
    """A classifier on its device, and how to feed it.

    Attributes:
        classifier: in evaluation mode.
        model_file: where it was loaded from.
        precision: for autocast.
        batch_size, workers: for loaders.
    """

    classifier: Classifier
    model_file: Path
    precision: Precision
    batch_size: int
    workers: int

    def loader(self, split: Split) -> EvaluationLoader:
        """Return the batches of a split, preprocessed for this classifier."""
        on_gpu = self.classifier.device.type == "cuda"
        return EvaluationLoader(split, self.classifier.preprocessing, self.batch_size, self.workers, pin_memory=on_gpu)

    @property
    def run(self) -> Path:
        """What a person names it by."""
        return run_of(self.model_file)

    @contextmanager
    def memory_explained(self) -> Iterator[None]:
        """Turn running out of memory into words that say what to lower."""
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise FgvcError(
                f"Out of memory with batches of {self.batch_size} images on {self.classifier.device}: try "
                f"--batch-size {max(1, self.batch_size // 2)}, or --device cpu."
            ) from error


def one_run(named: Sequence[Path]) -> Path | None:
    """Return the one run that was named, as an argument or with `--run`; None if none was.

    Raises:
        UsageError: different ones were named.
    """
    different = list(dict.fromkeys(named))
    if len(different) > 1:
        listed = ", ".join(map(str, different[:-1])) + f" and {different[-1]}"
        raise UsageError(
            f"{len(different)} runs are named, {listed}: add --ensemble to average their predictions or --sharpness to "
            "measure each, name one run, or set them beside each other with fgvc compare."
        )
    return different[0] if different else None


def find_models(named: Sequence[Path]) -> list[Path]:
    """Return the model files of the runs that were named, or the newest finished run's if none was.

    Raises:
        UsageError: a run is named twice, under whatever path.
        FgvcError: one of the runs is not there.
    """
    models = [find_model(run) for run in named] or [find_model(None)]
    files: set[Path] = set()
    for model in models:
        if model.resolve() in files:
            raise UsageError(f"{run_of(model)} is named twice: name each run once.")
        files.add(model.resolve())
    return models


def find_model(run: Path | None) -> Path:
    """Return the model file that `--run` means: a run folder's, a file itself, or the newest finished run's.

    Raises:
        FgvcError: there is no such run.
    """
    return run if run is not None and run.is_file() else find_run(run).model_file


def run_of(model_file: Path) -> Path:
    """Return what a person names a model by: its run folder, or the file itself if it is not called as in a run."""
    return model_file.parent if model_file.name == MODEL_FILE else model_file


def load(model_file: Path, computing: Computing) -> ReadyClassifier:
    """Load a classifier onto the device that a person wants.

    Raises:
        FgvcError: the file is damaged, or a component that it needs is not installed.
        UsageError: there is no such device, or not with that precision.
    """
    device = pick_device(computing.device)
    precision = resolve_precision(computing.precision, device)
    classifier: Classifier = load_classifier(model_file, device)
    if classifier.backbone.info.channels_last:
        classifier = classifier.to(memory_format=torch.channels_last)
    workers = loader_workers(computing.workers, device)
    return ReadyClassifier(classifier, model_file, precision, computing.batch_size, workers)
