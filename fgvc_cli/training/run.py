"""A whole training, from a person's settings to a finished run folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from fgvc_cli import files
from fgvc_cli.config.layering import Layer
from fgvc_cli.config.run_config import Choice, RunConfig, read_run_config
from fgvc_cli.contracts import Dataset
from fgvc_cli.data.splits import TrainingSplits
from fgvc_cli.devices import is_compile_error, is_out_of_memory
from fgvc_cli.errors import FgvcError
from fgvc_cli.registry import Registry
from fgvc_cli.runs.folder import RunFolder, check_out, new_run
from fgvc_cli.runs.model_file import describe_classifier, describe_component
from fgvc_cli.training.callbacks import RunStart, Trackers, make_trackers
from fgvc_cli.training.distributed import Ranks, joined
from fgvc_cli.training.finish import finish, leave_samples, versions
from fgvc_cli.training.setup import Job, Plan, draft, open_cache, open_splits, plan_again, plan_new, prepare
from fgvc_cli.training.state import heard, saved_weights
from fgvc_cli.training.trainer import Trainer
from fgvc_cli.training.trainer import View as TrainerView


class View(TrainerView, Protocol):
    """What a whole training reports to."""

    def announce(self, text: str) -> None:
        """Say a line about weights: a download's name and size come before it begins."""

    def started(self, job: Job, run: RunFolder, resumed_epoch: int | None) -> None:
        """Training starts (or goes on after that many epochs)."""

    def testing(self, images: int) -> None:
        """Training is over and the test split is being scored."""


@dataclass(frozen=True)
class Outcome:
    """A finished training.

    Attributes:
        run: its folder.
        job: what was trained.
        summary: what `summary.json` holds.
        samples: images to try the classifier on.
    """

    run: RunFolder
    job: Job
    summary: dict[str, Any]
    samples: list[Path]


def train(
    settings: Sequence[Layer],
    recipe: str | None,
    out: Path | None,
    offline: bool,
    registry: Registry,
    view: View,
    force: bool = False,
) -> Outcome:
    """Train a new run.

    Args:
        settings: a person's settings, weakest first.
        recipe: the recipe to begin from; None: by whether there are weights.
        out: the run folder; None: a new one under the runs folder.
        offline: whether downloads are forbidden.
        registry: finds components.
        view: is told how far it is.
        force: whether a run that stands at `out` may be replaced.
    """
    with joined() as ranks:
        if out is not None and ranks.first:
            check_out(out, force)
        first = draft(settings, recipe, registry)
        trackers = make_trackers(first.config.trackers)
        dataset, splits = _open(first.config, ranks)
        plan = _agreed(lambda: plan_new(first, offline, registry, view.announce), ranks, registry)
        if plan.config.trackers != first.config.trackers:  # a recipe may choose them by which weights there are
            trackers = make_trackers(plan.config.trackers)
        job = prepare(plan, dataset, splits, ranks)
        run = RunFolder(ranks.from_first(lambda: _new_folder(plan.config, out, force)))
        return _go(job, run, registry, view, trackers, resumed=False)


def resume(path: Path, registry: Registry, view: View, offline: bool = False) -> Outcome:
    """Go on with a run that was interrupted or killed.

    Raises:
        FgvcError: there is no run, it is finished, or a tracker that it had is not installed any more.
    """
    run = RunFolder(path)
    if not run.config_file.is_file():
        raise FgvcError(f"--resume {path}: no run folder (it has no {run.config_file.name}). fgvc train makes one.")
    if run.finished:
        raise FgvcError(
            f"--resume {path}: the run is finished. For a longer one: fgvc train --config {run.config_file} --epochs N."
        )
    settings, recipe = read_run_config(run.config_file)
    _expect_trackers(settings, run, registry)
    with joined() as ranks:
        if ranks.first:
            run.clear_parts()
        begun = saved_weights(run.state_file) if run.state_file.is_file() else None
        plan = _agreed(lambda: plan_again([settings], recipe, begun, registry, offline), ranks, registry)
        trackers = make_trackers(plan.config.trackers)
        dataset, splits = _open(plan.config, ranks)
        return _go(prepare(plan, dataset, splits, ranks), run, registry, view, trackers, resumed=True)


def _expect_trackers(settings: Layer, run: RunFolder, registry: Registry) -> None:
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


def _go(job: Job, run: RunFolder, registry: Registry, view: View, trackers: Trackers, resumed: bool) -> Outcome:
    told = trackers if job.ranks.first else Trackers()
    with heard() as interrupt, _explained(job.config), closing(open_cache(job)) as cache, told:
        event = RunStart(run.path, job.config.as_document(), job.classifier.class_names, resumed)
        trainer = Trainer(job, run, _description(job), event, registry, view, interrupt, cache=cache, trackers=told)
        if resumed:
            trainer.load()
            trainer.event = event = replace(event, epochs_done=trainer.progress.epoch)
        told.started(event)
        job.notes.extend([*cache.notes, *trainer.schedule.notes(), *told.notes()])
        view.started(job, run, trainer.progress.epoch if resumed else None)
        if job.ranks.first:
            registry.notify("fgvc_run_started", run=event)
        trainer.fit()
        view.testing(len(job.splits.test) if job.splits.test is not None else 0)
        summary = job.ranks.from_first(lambda: finish(trainer, trainer.tested))
        told.finished(summary)
    if not job.ranks.first:
        return Outcome(run, job, summary, [])
    registry.notify("fgvc_run_finished", run=event, summary=summary)
    return Outcome(run, job, summary, leave_samples(job, run, summary["unreadable"]))


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
