"""The end of a run: test figures of the best epoch, summary, curves, and a few images to try it on."""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Callable, Collection
from importlib import metadata
from pathlib import Path

import numpy as np
from PIL import Image

from fgvc_cli import files
from fgvc_cli._version import __version__
from fgvc_cli.contracts import Classifier, Split
from fgvc_cli.devices import describe_device
from fgvc_cli.errors import FgvcError
from fgvc_cli.runs import tensors
from fgvc_cli.runs.folder import Run
from fgvc_cli.runs.model_file import load_state, save_classifier
from fgvc_cli.runs.results import TrainingSummary
from fgvc_cli.scoring.metrics import split_metrics
from fgvc_cli.scoring.results import summarize, write
from fgvc_cli.scoring.scores import Scores, score
from fgvc_cli.training.setup import Job
from fgvc_cli.training.trainer import Trainer
from fgvc_cli.viz import learning_curves

SAMPLES = 4
"""Test images left in the folder of a run whose images nobody has at hand."""

VERSIONED = ("torch", "torchvision", "timm", "numpy", "pillow", "safetensors")


def finish(trainer: Trainer, on_batch: Callable[[int], object] | None = None) -> TrainingSummary:
    """Score the best epoch on the test split, and write the summary and the curves.

    Without an epoch (`--epochs 0`) it is the weights as they came, which become the run's model.

    Args:
        trainer: has trained to its end.
        on_batch: called with the number of images scored, for a progress bar.

    Returns:
        The summary, as written to `summary.json`.
    """
    job, run = trainer.job, trainer.run
    if job.config.train.epochs:
        _load_best(job.classifier, run)
        learning_curves(run.path / "curves.png", run.metrics)
    else:  # the weights as they came from a file
        save_classifier(run.model_file, job.classifier, {**trainer.description, "epoch": 0})
    test = _test(trainer, on_batch)
    if test is not None:
        _write_test(trainer, test)
    summary = _summary(trainer, test)
    files.write_json(run.summary_file, summary.as_json())
    return summary


def leave_samples(job: Job, run: Run, unreadable: Collection[str]) -> list[Path]:
    """Return test images for a person to try; those of a dataset nobody has as files are copied to the run."""
    split = job.splits.test or job.splits.val or job.splits.train
    readable = [i for i, key in enumerate(split.keys) if f"{split.name}/{key}" not in unreadable]
    spread = [readable[i] for i in np.linspace(0, len(readable) - 1, num=min(SAMPLES, len(readable))).astype(int)]
    if job.config.data is not None:
        return [p for i in spread if isinstance(p := split.images[i], Path)]
    return [_copy(split, i, run.path / "samples", job.dataset.class_names) for i in spread]


def _copy(split: Split, index: int, folder: Path, class_names: tuple[str, ...]) -> Path:
    image = split.images[index]
    folder.mkdir(exist_ok=True)
    target = folder / f"{class_names[split.labels[index]]}-{index:04}.png"
    with files.replacing(target) as beside:
        if isinstance(image, Path) and image.suffix == ".png":
            shutil.copyfile(image, beside)
        else:
            opened = Image.open(image) if isinstance(image, Path) else Image.fromarray(image)
            opened.convert("RGB").save(beside, format="png")
    return target


def _load_best(classifier: Classifier, run: Run) -> None:
    if not run.model_file.is_file():
        raise FgvcError(f"{run.path} has no trained model: no epoch was finished.")
    state, _ = tensors.load(run.model_file)
    load_state(classifier, state, run.model_file)


def _test(trainer: Trainer, on_batch: Callable[[int], object] | None) -> Scores | None:
    job = trainer.job
    if job.splits.test is None or not len(job.splits.test):
        return None
    loader = trainer.evaluation_loader(job.splits.test)
    scores = score(job.classifier, loader, job.splits.test, job.precision, on_batch)
    trainer.progress.note_unreadable("test", scores.failures)
    return scores if len(scores) else None


def _write_test(trainer: Trainer, scores: Scores) -> None:
    """Keep the prediction for each image, as `fgvc evaluate` does, so that runs can be compared image by image."""
    job, split = trainer.job, trainer.job.splits.test
    assert split is not None
    class_names = job.classifier.class_names
    summary = summarize(
        scores,
        class_names,
        split,
        runs=[trainer.run.path],
        dataset=job.dataset.name,
        data=job.config.data,
        device=job.device,
        precision=job.precision,
        preprocessing=job.classifier.preprocessing,
    )
    write(trainer.run.evaluation(split.name), summary, scores, class_names, draw=False)


def _summary(trainer: Trainer, test: Scores | None) -> TrainingSummary:
    job, progress, metrics = trainer.job, trainer.progress, trainer.run.metrics
    best = metrics[progress.best.epoch] if metrics else None
    classes = len(job.classifier.class_names)
    return TrainingSummary(
        run=trainer.run.name,
        classes=classes,
        chance=1 / classes,
        dataset=job.dataset.identity(),
        splits={s.name: {"images": len(s), "origin": s.origin} for s in _splits(job)},
        components=trainer.description["components"],
        recipe=job.config.recipe,
        weights=job.weights,
        epochs=progress.epoch,
        best_epoch=progress.best.epoch + 1,
        stopped_early=trainer.stopped_early(),
        train=None if best is None else best.train,
        val=None if best is None else best.val,
        test=None if test is None else split_metrics(test, job.classifier.class_names),
        parameters=_parameters(job.classifier),
        seconds=round(progress.seconds, 1),
        images_per_second=float(np.median([line.images_per_second for line in metrics])) if metrics else None,
        unreadable=progress.unreadable,
        device=describe_device(job.device),
        processes=job.ranks.count,
        precision=job.precision,
        seed=job.config.train.seed,
        versions=versions(),
    )


def versions() -> dict[str, str]:
    """Return the versions of everything a result may depend on."""
    found = {"fgvc-cli": __version__, "python": platform.python_version(), "platform": sys.platform}
    return {**found, **{name: metadata.version(name) for name in VERSIONED}}


def _splits(job: Job) -> list[Split]:
    return [s for s in (job.splits.train, job.splits.val, job.splits.test) if s is not None]


def _parameters(classifier: Classifier) -> dict[str, int]:
    backbone = sum(p.numel() for p in classifier.backbone.parameters())
    head = sum(p.numel() for p in classifier.head.parameters())
    return {"backbone": backbone, "head": head, "total": backbone + head}
