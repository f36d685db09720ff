"""Train a run from settings to its summary, or resume it."""

from __future__ import annotations

import io
import logging
import platform
import shutil
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image

from fgvc_cli import files, viz
from fgvc_cli._version import __version__
from fgvc_cli.config.layering import Layer
from fgvc_cli.config.run_config import PLUGINS, Choice, RunConfig, read_config, read_run_config
from fgvc_cli.contracts import Dataset, FittedHead, RunStart, Split
from fgvc_cli.data.cache.policy import TrainingCache
from fgvc_cli.data.identity import DataIdentity, normal
from fgvc_cli.data.splits import TrainingSplits
from fgvc_cli.devices import busy_cores, describe_device, is_compile_error, is_out_of_memory, note_on_threads
from fgvc_cli.errors import FgvcError
from fgvc_cli.launch import usable_cores
from fgvc_cli.registry import Registry, get_registry
from fgvc_cli.registry.versions import made_with
from fgvc_cli.runs import model_file
from fgvc_cli.runs.folder import Run, check_out, new_run, training_lock
from fgvc_cli.runs.model_file import (
    CALIBRATION,
    describe_classifier,
    describe_component,
    load_state,
    read_metadata,
    save_classifier,
)
from fgvc_cli.runs.results import SplitMetrics, TrainingSummary, ValMetrics
from fgvc_cli.scoring.results import summarize, write
from fgvc_cli.scoring.scores import score, split_metrics
from fgvc_cli.scoring.taxonomy import Tree, taxonomy_metrics
from fgvc_cli.specs import HeadSpec
from fgvc_cli.training import kept_features
from fgvc_cli.training.callbacks import Callback, Callbacks, PluginHooks, TrackerCallback
from fgvc_cli.training.distributed import Ranks, process_group
from fgvc_cli.training.precision import with_precision
from fgvc_cli.training.setup import Job, Plan, draft, open_cache, open_splits, plan_new, plan_resumed, prepare
from fgvc_cli.training.state import catch_signals, recorded_data, saved_weights
from fgvc_cli.training.trainer import Trainer
from fgvc_cli.training.warm_start import with_probe

logger = logging.getLogger(__name__)

SAMPLES = 4
"""Number of images in `samples`."""

VERSIONED = ("torch", "torchvision", "timm", "numpy", "pillow", "safetensors")


def finish(trainer: Trainer) -> TrainingSummary:
    """Score the best epoch on the test split, and write summary, curves and predictions.

    Without epochs, the imported weights become the model of the run.
    """
    job, run = trainer.job, trainer.run
    trained = _trained_parameters(job, trainer.progress.epoch)
    if not job.config.train.epochs:
        save_classifier(run.model_file, job.classifier, {**trainer.description, "epoch": 0})
    elif not run.model_file.is_file():
        raise FgvcError(f"{run.path} has no model: no epoch is finished")
    else:
        if job.adapters is not None:
            job.adapters.remove()
        state, _ = model_file.load(run.model_file)
        load_state(job.classifier, state, run.model_file)
        viz.learning_curves(run.path / "curves.png", run.metrics)
    summary = _summary(trainer, _test(trainer), trained)
    files.write_json(run.summary_file, summary.as_json())
    return summary


def _trained_parameters(job: Job, epochs: int) -> int:
    """Return the number of parameters that trained in the last of these epochs."""
    if isinstance(job.classifier.head, FittedHead):
        return sum(parameter.numel() for parameter in job.classifier.head.parameters())
    return job.freezing.trained(epochs - 1) if epochs else 0


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
            opened = (
                Image.fromarray(image)
                if isinstance(image, np.ndarray)
                else Image.open(image if isinstance(image, Path) else io.BytesIO(image.read()))
            )
            opened.convert("RGB").save(part, format="png")
    return target


def _test(trainer: Trainer) -> SplitMetrics | None:
    """Score the test split and write its predictions, as `fgvc evaluate` does, so that runs can be compared by image.

    Returns:
        The metrics; None without a readable test image.
    """
    job, split = trainer.job, trainer.job.splits.test
    if split is None or not len(split) or not job.config.train.score_test:
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
        taxonomy=None if job.taxonomy is None else taxonomy_metrics(scores, Tree(job.taxonomy, class_names)),
    )
    write(trainer.run.evaluation(split.name), summary, scores, class_names, draw=False)
    return split_metrics(scores, class_names)


def _summary(trainer: Trainer, test: SplitMetrics | None, trained: int) -> TrainingSummary:
    job, progress, metrics = trainer.job, trainer.progress, trainer.run.metrics
    best = next((line for line in metrics if line.epoch == progress.best.epoch + 1), None)
    start = ValMetrics.from_json(progress.start) if progress.start else None
    val = start if best is None else best.val
    if trainer.average is not None and trainer.average.saved:
        val = trainer.average.val
    classes = len(job.classifier.class_names)
    splits = [s for s in (job.splits.train, job.splits.val, job.splits.test) if s is not None]
    parts = job.classifier.backbone, job.classifier.head
    backbone, head = (sum(p.numel() for p in part.parameters()) for part in parts)
    return TrainingSummary(
        run=trainer.run.name,
        classes=classes,
        chance=1 / classes,
        dataset=job.dataset.identity(),
        data=trainer.description.get("data"),
        splits={s.name: {"images": len(s), "origin": s.origin} for s in splits},
        components=trainer.description["components"],
        recipe=job.config.recipe,
        weights=job.weights,
        epochs=progress.epoch,
        best_epoch=progress.best.epoch + 1,
        stopped_early=trainer.stopped_early(),
        train=None if best is None else best.train,
        val=val,
        test=test,
        average=trainer.average,
        start=start,
        parameters={"backbone": backbone, "head": head, "total": backbone + head, "trained": trained},
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


@dataclass(frozen=True)
class TrainingResult:
    """A finished training.

    Attributes:
        run: its folder.
        job: what was trained.
        summary: what `summary.json` holds.
        samples: images to try the classifier on; only the first of several processes has them.
    """

    run: Run
    job: Job
    summary: TrainingSummary
    samples: list[Path] = field(default_factory=list)


def train(
    settings: Sequence[Layer],
    recipe: str | None,
    out: Path | None,
    offline: bool,
    registry: Registry,
    callbacks: Sequence[Callback] = (),
    force: bool = False,
) -> TrainingResult:
    """Train a new run, with the settings of the user, weakest first; see `fgvc_cli.train`.

    Raises:
        Interrupted: SIGINT or SIGTERM was received; the state is saved.
        UsageError: settings are wrong or do not fit together, or `out` cannot be used.
        FgvcError: data or weights are missing, the loss is not finite, or memory or disk is full.
    """
    with process_group() as ranks:
        if out is not None and ranks.first:
            check_out(out, force)
        first = draft(settings, recipe, registry)
        trackers = list(map(TrackerCallback, first.config.trackers))
        dataset, splits, data = _open(first.config, ranks)
        plan = _agreed(lambda: plan_new(first, offline, registry), ranks, registry)
        if plan.config.trackers != first.config.trackers:  # a recipe may choose them by which weights there are
            trackers = list(map(TrackerCallback, plan.config.trackers))
        for name in ("teacher", "taxonomy"):
            if (path := getattr(plan.config.train, name)) is not None:
                absolute = str(Path(path).expanduser().absolute())
                plan = replace(plan, config=plan.config.with_train(**{name: absolute}))
        job = prepare(plan, dataset, splits, ranks)
        with ExitStack() as stack:
            run = Run(ranks.broadcast(lambda: stack.enter_context(_new_folder(job.config, out, force))))
            return _train(job, run, data, Callbacks([*trackers, *callbacks, PluginHooks(registry)]), resumed=False)


def resume(
    path: Path,
    registry: Registry,
    callbacks: Sequence[Callback] = (),
    offline: bool = False,
    allow_changed_data: bool = False,
) -> TrainingResult:
    """Resume a run that was interrupted or killed.

    Raises:
        FgvcError: there is no run, it is finished, another process trains it, one of its trackers is no longer
            installed, or its data changed (for other classes with `allow_changed_data` too).
    """
    run = Run(path)
    if not run.config_file.is_file():
        raise FgvcError(f"`resume={path}`: not a run folder (it has no {run.config_file.name})")
    settings, recipe = read_run_config(run.config_file)
    if run.finished:
        longer = "" if _is_fitted(settings, registry) else " and a larger `epochs`, for a longer one"
        raise FgvcError(
            f"`resume={path}`: the run is finished; train a new one with `config={run.config_file}`{longer}"
        )
    _check_trackers(settings, run, registry)
    with process_group() as ranks, training_lock(run.path) if ranks.first else nullcontext():
        if ranks.first:
            run.clear_parts()
        weights = saved_weights(run.state_file) if run.state_file.is_file() else None
        plan = _agreed(lambda: plan_resumed([settings], recipe, weights, registry, offline), ranks, registry)
        trackers = list(map(TrackerCallback, plan.config.trackers))
        moved = plan.config.data
        if moved is not None and not moved.exists():
            raise FgvcError(
                f"`resume={path}`: its data {moved} does not exist; if it was moved, change dataset.data in "
                f"{run.config_file}"
            )
        dataset, splits, data = _open(plan.config, ranks)
        if weights is not None:
            data = _data_to_resume_with(run, data, allow_changed_data, plan.config.train.folds)
        if ranks.first and run.model_file.is_file() and CALIBRATION in read_metadata(run.model_file):
            logger.warning(
                "the calibration of this run is lost with the next best epoch: calibrate again when it is finished "
                "(fgvc calibrate)"
            )
        job = prepare(plan, dataset, splits, ranks, run.state_file)
        return _train(job, run, data, Callbacks([*trackers, *callbacks, PluginHooks(registry)]), resumed=True)


def _is_fitted(settings: Layer, registry: Registry) -> bool:
    """Return whether the head of a run is fitted at once, without epochs."""
    try:
        return cast(HeadSpec, registry.find("head", str(settings["head"]["name"])).spec).fitted
    except (FgvcError, KeyError, TypeError):  # a plugin that is no longer installed, or a damaged file
        return False


def _data_to_resume_with(run: Run, now: DataIdentity, allow_changes: bool, folds: int) -> DataIdentity:
    """Return the identity of the data to record from now on.

    Raises:
        FgvcError: the data changed since the state was saved, and this was not allowed, or classes or folds did.
    """
    before = recorded_data(run)
    if before is None:
        return now
    changes = before.changes_to(now)
    if not changes:
        return replace(now, changes=before.changes)
    what = f"`resume={run.path}`: the data changed since training: {'; '.join(changes)}"
    if tuple(map(normal, before.classes)) != tuple(map(normal, now.classes)):
        raise FgvcError(
            f"{what}. The model's outputs stand for the classes it was trained on; restore them, or train a new run "
            f"with `config={run.config_file}`"
        )
    if folds:
        raise FgvcError(
            f"{what}. Images may have moved from the training folds to the one validated on; restore it, or train a "
            f"new run with `config={run.config_file}`"
        )
    if not allow_changes:
        raise FgvcError(
            f"{what}. Restore it, train a new run with `config={run.config_file}`, or resume with the data as it is "
            "now (`allow_changed_data=true`)"
        )
    for change in changes:
        logger.warning(f"the data changed since training: {change}")
    epochs = len(run.metrics)
    return replace(now, changes=(*before.changes, *(f"after epoch {epochs}: {change}" for change in changes)))


def _check_trackers(settings: Layer, run: Run, registry: Registry) -> None:
    """Raise `FgvcError` if a tracker of the run is no longer installed; it says how to resume without it."""
    for name in settings["train"].get("track", ()):
        try:
            with made_with(settings.get(PLUGINS, {}), str(run.path), registry):
                registry.find("tracker", str(name))
        except FgvcError as error:
            raise FgvcError(
                f"{str(error).rstrip('.')}. Install it, or remove it from train.track in {run.config_file}"
            ) from error


def _open(config: RunConfig, ranks: Ranks) -> tuple[Dataset, TrainingSplits, DataIdentity]:
    """Open the dataset; the first process generates or packs what the others then find."""
    with ranks.first_process_first():
        dataset, splits = open_splits(config)
    data = DataIdentity.of(dataset)
    if len(set(ranks.all_gather(data.training_digest))) > 1:
        raise FgvcError(f"The processes find different images of {dataset.name}; every machine needs the same files")
    return dataset, splits, data


def _agreed(decide: Callable[[], Plan], ranks: Ranks, registry: Registry) -> Plan:
    """Return the plan of the first process; the others take its settings, and its weights when training starts."""
    plan = decide() if ranks.first else None
    decided: Any = plan and (plan.config.as_layer(), plan.config.recipe, plan.weights)
    settings, recipe, weights = ranks.broadcast(lambda: decided)
    return plan or plan_resumed([settings], recipe, weights, registry, offline=True)


@contextmanager
def _new_folder(config: RunConfig, out: Path | None, force: bool) -> Iterator[Path]:
    """Create the run folder with its configuration, locked within the block."""
    names = (config.dataset.name, config.backbone.name, config.head.name, config.optimizer.name)
    with new_run(out, force, *names) as run:
        files.write_text(run.config_file, config.as_toml())
        yield run.path


def _train(job: Job, run: Run, data: DataIdentity, callbacks: Callbacks, resumed: bool) -> TrainingResult:
    if not job.ranks.first:
        callbacks = Callbacks()
    with catch_signals() as interrupt, _errors_explained(job.config), closing(_cache(job)) as cache, callbacks:
        job = with_precision(job, run)
        if job.config.train.head_init == "probe" and not run.state_file.is_file():
            job = with_probe(job, lambda: interrupt.check("computing features", run.path))
        trainer = Trainer(job, run, _description(job, data), callbacks, interrupt, cache=cache)
        if resumed:
            recorded = read_config(run.config_file)[0].get(PLUGINS, {})
            with made_with(recorded, str(run.path), get_registry()):
                trainer.load()
        job.notes.extend([*cache.notes, *trainer.schedule.notes(), *kept_features.notes(job), *_notes_on_load(job)])
        start = RunStart(
            run.path, job.config.as_document(), job.classifier.class_names, resumed, trainer.progress.epoch
        )
        callbacks.start(start, job)
        trainer.fit()
        for callback in callbacks:
            scored = job.splits.test if job.config.train.score_test else None
            callback.on_test_start(0 if scored is None else len(scored))
        summary = job.ranks.broadcast(lambda: finish(trainer))
        callbacks.end(summary)
    return TrainingResult(run, job, summary, sample_images(job, run, summary.unreadable) if job.ranks.first else [])


def _notes_on_load(job: Job) -> list[str]:
    """Return a line if the threads of a training on the CPU wait for cores that others use."""
    threads = torch.get_num_threads()
    if job.device.type != "cpu" or job.ranks.count > 1 or threads == 1:
        return []
    line = note_on_threads(threads, usable_cores(), busy_cores())
    return [line] if line else []


def _cache(job: Job) -> TrainingCache:
    """Open the cache of decoded images, if they are read more than once."""
    return TrainingCache() if kept_features.without_images(job) else open_cache(job)


def _description(job: Job, data: DataIdentity) -> dict[str, Any]:
    """Return the metadata for the model file: how to build the classifier, and how it was trained."""
    kinds = ("backbone", "head", "optimizer", "dataset")
    return {
        "components": {kind: _component(getattr(job.config, kind)) for kind in kinds},
        **describe_classifier(job.classifier),
        "dataset": job.dataset.identity(),
        "data": data.as_json(),
        "weights": job.weights,
        **({} if (t := job.teacher) is None else {"teacher": {"run": t.options.teacher, "sha256": t.digest}}),
        "versions": versions(),
        **({} if job.taxonomy is None else {"taxonomy": job.taxonomy.as_json()}),
    }


def _component(choice: Choice) -> dict[str, Any]:
    described = describe_component(choice.component, choice.options)
    return described if choice.base is None else {**described, "base": _component(choice.base)}


@contextmanager
def _errors_explained(config: RunConfig) -> Iterator[None]:
    """Say what to change if memory runs out or the model cannot be compiled."""
    try:
        yield
    except Exception as error:
        if is_compile_error(error):
            cause = f"{type(error).__name__}: {str(error).splitlines()[0]}"
            raise FgvcError(
                f"`compile=true` failed on this machine ({cause}); train without it, or install a C++ compiler if "
                "that is missing"
            ) from error
        if isinstance(error, FgvcError) or not is_out_of_memory(error):
            raise
        train = config.train
        raise FgvcError(
            f"Out of memory with batches of {train.batch_size} images of {train.image_size} px. Try "
            f"`batch_size={max(2, train.batch_size // 2)}` with `train.grad_accum_steps={train.grad_accum_steps * 2}` "
            "(the same update in two halves), or a smaller `image_size`."
        ) from error
