"""A whole training, from settings to a finished run folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fgvc_cli import files
from fgvc_cli.config.layering import Layer
from fgvc_cli.config.run_config import Choice, RunConfig, read_run_config
from fgvc_cli.contracts import Dataset, RunStart
from fgvc_cli.data.splits import TrainingSplits
from fgvc_cli.devices import is_compile_error, is_out_of_memory
from fgvc_cli.errors import FgvcError
from fgvc_cli.registry import Registry
from fgvc_cli.runs.folder import Run, check_out, new_run
from fgvc_cli.runs.model_file import describe_classifier, describe_component
from fgvc_cli.runs.results import TrainingSummary
from fgvc_cli.training.callbacks import Callback, Callbacks, PluginHooks, tracker_callbacks
from fgvc_cli.training.distributed import Ranks, joined
from fgvc_cli.training.finish import finish, leave_samples, versions
from fgvc_cli.training.setup import Job, Plan, draft, open_cache, open_splits, plan_again, plan_new, prepare
from fgvc_cli.training.state import heard, saved_weights
from fgvc_cli.training.trainer import Trainer


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
    """Train a new run.

    Args:
        settings: settings of the user, weakest first.
        recipe: the recipe to start from; None: by whether there are weights.
        out: the run folder; None: a new one under the runs folder.
        offline: whether downloads are forbidden.
        registry: finds components.
        callbacks: follow the training.
        force: whether a run at `out` may be replaced.

    Raises:
        Interrupted: SIGINT or SIGTERM was received; the state is saved.
        UsageError: settings are wrong or do not fit together, or `out` cannot be used.
        FgvcError: data or weights are missing, the loss is not finite, or memory or disk is full.
    """
    with joined() as ranks:
        if out is not None and ranks.first:
            check_out(out, force)
        first = draft(settings, recipe, registry)
        trackers = tracker_callbacks(first.config.trackers)
        dataset, splits = _open(first.config, ranks)
        plan = _agreed(lambda: plan_new(first, offline, registry), ranks, registry)
        if plan.config.trackers != first.config.trackers:  # a recipe may choose them by which weights there are
            trackers = tracker_callbacks(plan.config.trackers)
        job = prepare(plan, dataset, splits, ranks)
        run = Run(ranks.from_first(lambda: _new_folder(plan.config, out, force)))
        return _train(job, run, Callbacks([*trackers, *callbacks, PluginHooks(registry)]), resumed=False)


def resume(path: Path, registry: Registry, callbacks: Sequence[Callback] = (), offline: bool = False) -> TrainingResult:
    """Resume a run that was interrupted or killed.

    Raises:
        FgvcError: there is no run, it is finished, or one of its trackers is no longer installed.
    """
    run = Run(path)
    if not run.config_file.is_file():
        raise FgvcError(f"`resume={path}`: not a run folder (it has no {run.config_file.name})")
    if run.finished:
        raise FgvcError(
            f"`resume={path}`: the run is finished; for a longer one, train with `config={run.config_file}` and a "
            "larger `epochs`"
        )
    settings, recipe = read_run_config(run.config_file)
    _expect_trackers(settings, run, registry)
    with joined() as ranks:
        if ranks.first:
            run.clear_parts()
        weights = saved_weights(run.state_file) if run.state_file.is_file() else None
        plan = _agreed(lambda: plan_again([settings], recipe, weights, registry, offline), ranks, registry)
        trackers = tracker_callbacks(plan.config.trackers)
        job = prepare(plan, *_open(plan.config, ranks), ranks)
        return _train(job, run, Callbacks([*trackers, *callbacks, PluginHooks(registry)]), resumed=True)


def _expect_trackers(settings: Layer, run: Run, registry: Registry) -> None:
    """Raise `FgvcError` if a tracker that a run had is not there: nobody should lose a run by that."""
    for name in settings["train"].get("track", ()):
        try:
            registry.find("tracker", str(name))
        except FgvcError as error:
            raise FgvcError(f"{error} Install it, or leave it out of train.track in {run.config_file}.") from error


def _open(config: RunConfig, ranks: Ranks) -> tuple[Dataset, TrainingSplits]:
    """Open the dataset; the first process draws or packs what the others then find."""
    with ranks.in_turn():
        dataset, splits = open_splits(config)
    images = repr([(split.keys, list(split.labels)) for split in (splits.train, splits.val) if split is not None])
    if len(set(ranks.gathered(hashlib.sha256(images.encode()).hexdigest()))) > 1:
        raise FgvcError(
            f"The processes do not see the same images of {dataset.name}: give every machine the same files."
        )
    return dataset, splits


def _agreed(decide: Callable[[], Plan], ranks: Ranks, registry: Registry) -> Plan:
    """Return the plan of the first process: the others take its settings, and its weights when training begins."""
    plan = decide() if ranks.first else None
    settings, recipe, weights = ranks.from_first(lambda: _told(plan))
    return plan or plan_again([settings], recipe, weights, registry, offline=True)


def _told(plan: Plan | None) -> tuple[Layer, str, str]:
    assert plan is not None  # only the first process tells
    return plan.config.as_layer(), plan.config.recipe, plan.weights


def _new_folder(config: RunConfig, out: Path | None, force: bool) -> Path:
    """Make the run folder, with its configuration in it."""
    run = new_run(out, force, config.dataset.name, config.backbone.name, config.head.name, config.optimizer.name)
    files.write_text(run.config_file, config.as_toml())
    return run.path


def _train(job: Job, run: Run, callbacks: Callbacks, resumed: bool) -> TrainingResult:
    if not job.ranks.first:
        callbacks = Callbacks()
    with heard() as interrupt, _explained(job.config), closing(open_cache(job)) as cache, callbacks:
        trainer = Trainer(job, run, _description(job), callbacks, interrupt, cache=cache)
        if resumed:
            trainer.load()
        job.notes.extend([*cache.notes, *trainer.schedule.notes()])
        start = RunStart(
            run.path, job.config.as_document(), job.classifier.class_names, resumed, trainer.progress.epoch
        )
        callbacks.start(start, job)
        trainer.fit()
        for callback in callbacks:
            callback.on_test_start(0 if job.splits.test is None else len(job.splits.test))
        summary = job.ranks.from_first(lambda: finish(trainer, trainer.tested))
        callbacks.end(summary)
    return TrainingResult(run, job, summary, leave_samples(job, run, summary.unreadable) if job.ranks.first else [])


def _description(job: Job) -> dict[str, Any]:
    """Return what the model file says of the classifier: enough to build it again, and where it is from."""
    config = job.config
    kinds = ("backbone", "head", "optimizer", "dataset")
    choices = {kind: getattr(config, kind) for kind in kinds}
    return {
        "components": {kind: _component(choice) for kind, choice in choices.items()},
        **describe_classifier(job.classifier),
        "dataset": job.dataset.identity(),
        "weights": job.weights,
        "versions": versions(),
    }


def _component(choice: Choice) -> dict[str, Any]:
    described = describe_component(choice.component, choice.options)
    return described if choice.base is None else {**described, "base": _component(choice.base)}


class _explained:  # noqa: N801
    """Turns running out of memory, and a model that cannot be compiled here, into words that say what to do."""

    def __init__(self, config: RunConfig) -> None:
        self.config = config

    def __enter__(self) -> None:
        return None

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if error is None or isinstance(error, FgvcError):
            return
        if is_compile_error(error):
            raise FgvcError(
                f"--compile failed on this machine ({type(error).__name__}: {str(error).splitlines()[0]}): leave it "
                "out, or install a C++ compiler if that is what it lacks."
            ) from error
        if not is_out_of_memory(error):
            return
        train = self.config.train
        smaller = max(2, train.batch_size // 2)
        raise FgvcError(
            f"Out of memory with batches of {train.batch_size} images of {train.image_size} px. Try --batch-size "
            f"{smaller} --set train.grad_accum_steps={train.grad_accum_steps * 2} (the same update in two halves), or "
            "a smaller --image-size."
        ) from error
