"""The end of a run: test metrics of the best epoch, summary, learning curves, and sample images."""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Collection
from importlib import metadata
from pathlib import Path

import numpy as np
from PIL import Image

from fgvc_cli import files
from fgvc_cli._version import __version__
from fgvc_cli.contracts import Split
from fgvc_cli.devices import describe_device
from fgvc_cli.errors import FgvcError
from fgvc_cli.runs import tensors
from fgvc_cli.runs.folder import Run
from fgvc_cli.runs.model_file import load_state, save_classifier
from fgvc_cli.runs.results import SplitMetrics, TrainingSummary
from fgvc_cli.scoring.metrics import split_metrics
from fgvc_cli.scoring.results import summarize, write
from fgvc_cli.scoring.scores import score
from fgvc_cli.training.setup import Job
from fgvc_cli.training.trainer import Trainer
from fgvc_cli.viz import learning_curves

SAMPLES = 4
"""Number of images in `samples`."""

VERSIONED = ("torch", "torchvision", "timm", "numpy", "pillow", "safetensors")


def finish(trainer: Trainer) -> TrainingSummary:
    """Score the best epoch on the test split, and write summary, curves and predictions.

    Without epochs, the imported weights become the model of the run.
    """
    job, run = trainer.job, trainer.run
    if not job.config.train.epochs:
        save_classifier(run.model_file, job.classifier, {**trainer.description, "epoch": 0})
    elif not run.model_file.is_file():
        raise FgvcError(f"{run.path} has no model: no epoch is finished")
    else:
        state, _ = tensors.load(run.model_file)
        load_state(job.classifier, state, run.model_file)
        learning_curves(run.path / "curves.png", run.metrics)
    summary = _summary(trainer, _test(trainer))
    files.write_json(run.summary_file, summary.as_json())
    return summary


def sample_images(job: Job, run: Run, unreadable: Collection[str]) -> list[Path]:
    """Return a few test images to try the classifier on; those of a named dataset are copied to the run folder."""
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
    with files.replacing(target) as part:
        if isinstance(image, Path) and image.suffix == ".png":
            shutil.copyfile(image, part)
        else:
            opened = Image.open(image) if isinstance(image, Path) else Image.fromarray(image)
            opened.convert("RGB").save(part, format="png")
    return target


def _test(trainer: Trainer) -> SplitMetrics | None:
    """Score the test split and write its predictions, as `fgvc evaluate` does, so that runs can be compared by image.

    Returns:
        The metrics; None without a readable test image.
    """
    job, split = trainer.job, trainer.job.splits.test
    if split is None or not len(split):
        return None
    loader = trainer.evaluation_loader(split)
    scores = score(job.classifier, loader, split, job.precision, trainer.on_images_scored)
    trainer.progress.note_unreadable("test", scores.failures)
    if not len(scores):
        return None
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
    return split_metrics(scores, class_names)


def _summary(trainer: Trainer, test: SplitMetrics | None) -> TrainingSummary:
    job, progress, metrics = trainer.job, trainer.progress, trainer.run.metrics
    best = metrics[progress.best.epoch] if metrics else None
    classes = len(job.classifier.class_names)
    splits = [s for s in (job.splits.train, job.splits.val, job.splits.test) if s is not None]
    parts = job.classifier.backbone, job.classifier.head
    backbone, head = (sum(p.numel() for p in part.parameters()) for part in parts)
    return TrainingSummary(
        run=trainer.run.name,
        classes=classes,
        chance=1 / classes,
        dataset=job.dataset.identity(),
        splits={s.name: {"images": len(s), "origin": s.origin} for s in splits},
        components=trainer.description["components"],
        recipe=job.config.recipe,
        weights=job.weights,
        epochs=progress.epoch,
        best_epoch=progress.best.epoch + 1,
        stopped_early=trainer.stopped_early(),
        train=None if best is None else best.train,
        val=None if best is None else best.val,
        test=test,
        parameters={"backbone": backbone, "head": head, "total": backbone + head},
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
    """Return the versions of the packages that a result may depend on."""
    found = {"fgvc-cli": __version__, "python": platform.python_version(), "platform": sys.platform}
    return {**found, **{name: metadata.version(name) for name in VERSIONED}}
