"""`train.precision=auto` on a CPU: time a few updates in both precisions when a training starts."""

from __future__ import annotations

import copy
import gc
import logging
import math
import random
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from fgvc_cli.config.run_config import RunConfig
from fgvc_cli.contracts import Classifier, FittedHead, Optimizer
from fgvc_cli.data.staging import soft_targets
from fgvc_cli.devices import Precision, autocast, has_bf16_units, resolve_precision
from fgvc_cli.runs.folder import RUNS, STUDY_FILE, Run
from fgvc_cli.scoring.precision import Decision, Decisions, Key, measured, prediction_key
from fgvc_cli.scoring.scores import evaluating
from fgvc_cli.training.freezing import Freezing
from fgvc_cli.training.kept_features import without_images
from fgvc_cli.training.setup import Job, build_optimizer, wants_channels_last
from fgvc_cli.training.state import recorded_precision
from fgvc_cli.training.update import Update, random_state, set_random_state

logger = logging.getLogger(__name__)

LR_FACTOR = 1e-3
"""With nearly constant weights all rounds are equal; the amount of work does not depend on the learning rate."""
ROUNDS = 2
"""Timed updates in each precision, after one to warm up."""
COST = 6
"""A trial takes at most about as long as this many updates: two warm up, up to four are timed, and two predictions."""
SHARE = 0.02
"""Largest fraction of a training that a trial may take."""
HOPELESS = 3.0
"""A first update in bf16 that takes this many times as long as in fp32 ends the trial; it includes one-time work."""
PRECISIONS: tuple[Precision, Precision] = ("fp32", "bf16")

Timer = Callable[[Callable[[], object], Precision], float]
"""Runs work in a precision and returns its milliseconds."""


def timed(work: Callable[[], object], precision: Precision) -> float:  # noqa: ARG001, what tests decide by
    """Run work and return its milliseconds."""
    start = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - start)


def with_precision(job: Job, run: Run, timer: Timer = timed) -> Job:
    """Return the job in the precision that `train.precision=auto` stands for, with a note on why.

    In this order: what the interrupted run that is resumed was trained in; what an earlier run of the same study with
    these settings was; what an earlier training on this processor measured; what a trial measures now, if that takes
    less than 2 % of the training; fp32. Only processors with bf16 units are tried. Several processes follow the first.
    """
    train = job.config.train
    if train.precision != "auto":
        return job
    decision = job.ranks.broadcast(lambda: _decide(job, run, timer))
    teacher = None if job.teacher is None else replace(job.teacher, precision=decision.precision)
    notes = [f"precision {decision.precision}: {_reason(decision)}"] if decision.fp32 and decision.bf16 else []
    return replace(job, precision=decision.precision, teacher=teacher, notes=[*job.notes, *notes])


def _reason(decision: Decision) -> str:
    other: Precision = "fp32" if decision.precision == "bf16" else "bf16"
    times = {"fp32": decision.fp32 or 0.0, "bf16": decision.bf16 or 0.0}
    return f"an update takes {times[decision.precision]:.0f} ms, in {other} {times[other]:.0f} ms"


def _decide(job: Job, run: Run, timer: Timer) -> Decision:
    default = Decision(resolve_precision("auto", job.device))
    if recorded := recorded_precision(run):
        if recorded == "bf16" and job.device.type == "cuda" and default.precision != "bf16":
            logger.warning("the run was trained in bf16, which this GPU does not support; it resumes in fp32")
            return default
        return Decision(recorded)
    if run.state_file.is_file() or job.device.type != "cpu":  # saved by an earlier version, which used the default
        return default
    key = update_key(job)
    study = _study_of(run)
    found = None if study is None else study.find(_without_processor(key))
    decision = found or _measured(job, key, timer) or default
    return decision if study is None or found else study.keep(_without_processor(key), decision)


def _measured(job: Job, key: Key, timer: Timer) -> Decision | None:
    """Return the decision for a training on this processor; None if it is not worth a trial, or the trial fails."""
    if not has_bf16_units() or job.config.train.compile or isinstance(job.classifier.head, FittedHead):
        return None
    if found := measured().find(key):
        return found
    if without_images(job) or SHARE * _updates(job) < COST:
        return None
    try:
        update, predict = compare(job, timer)
    except Exception as error:  # what a component cannot do in bf16, or memory for a second copy
        reason = str(error).partition("\n")[0]
        logger.info(f"precision fp32: bf16 could not be tried ({type(error).__name__}: {reason})")
        return None
    if predict is not None:
        measured().keep(prediction_key(job.classifier), predict)
    return measured().keep(key, update)


def _updates(job: Job) -> int:
    train = job.config.train
    return train.epochs * -(-len(job.splits.train) // (train.batch_size * train.grad_accum_steps * job.ranks.count))


def update_key(job: Job) -> Key:
    """Return the key of a training's updates on this processor."""
    train = job.config.train
    settings = ("batch_size", "grad_accum_steps", "freeze", "lora_rank", "checkpoint_activations", "channels_last")
    return {
        **prediction_key(job.classifier),
        "work": "update",
        "optimizer": job.config.optimizer.title,
        "parameters": sum(parameter.numel() for parameter in job.classifier.parameters()),
        **{name: getattr(train, name) for name in settings},
    }


def _without_processor(key: Key) -> Key:
    """Return the key in a study, whose runs may be trained on different machines."""
    return {name: value for name, value in key.items() if name not in ("processor", "threads", "torch")}


def _study_of(run: Run) -> Decisions | None:
    """Return the decisions of the study that a run belongs to; None without one."""
    folder: Path = run.path.absolute().parent
    belongs = folder.name == RUNS and (folder.parent / STUDY_FILE).is_file()
    return Decisions(folder.parent / "precision") if belongs else None


def compare(job: Job, timer: Timer) -> tuple[Decision, Decision | None]:
    """Time updates and predictions of a job in both precisions, alternately, on a copy of its classifier.

    The classifier, the optimizer and the random generators of the job stay as they are.

    Returns:
        The decision for updates, and that for predictions; None for the latter if updates in bf16 were hopeless.
    """
    try:
        with _random_kept():
            return _compare(job, _Trial(copy.deepcopy(job.classifier), timer))
    finally:
        gc.collect()


def _compare(job: Job, trial: _Trial) -> tuple[Decision, Decision | None]:
    train, model = job.config.train, trial.model
    size, classes = model.preprocessing.image_size, len(model.class_names)
    channels_last = wants_channels_last(job.config, model.backbone)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    images = torch.randn(train.batch_size, 3, size, size).contiguous(memory_format=layout)
    targets = soft_targets(torch.arange(train.batch_size) % classes, classes, train.label_smoothing)
    batches = [(images, targets)] * train.grad_accum_steps
    with trial_update(model, job.config, trial.context) as (update, _):
        first = {precision: trial.time(lambda: update(batches), precision) for precision in PRECISIONS}
        if first["bf16"] > HOPELESS * first["fp32"]:
            return Decision("fp32", first["fp32"], first["bf16"]), None
        updates = trial.fastest(lambda: update(batches))
    with evaluating(model):
        return updates, trial.fastest(lambda: trial.predict(images), rounds=1)


@dataclass
class _Trial:
    """Times work of a classifier in one precision or the other."""

    model: Classifier
    timer: Timer
    precision: Precision = "fp32"

    def context(self) -> AbstractContextManager[object]:
        """Return the context of a forward pass."""
        return autocast(self.model.device, self.precision)

    def predict(self, images: torch.Tensor) -> None:
        """Compute the scores of a batch."""
        with self.context():
            self.model.scores(images)

    def time(self, work: Callable[[], object], precision: Precision) -> float:
        """Return the milliseconds of work in a precision."""
        self.precision = precision
        return self.timer(work, precision)

    def fastest(self, work: Callable[[], object], rounds: int = ROUNDS) -> Decision:
        """Decide by the fastest of alternate rounds, as other load slows some down; stop once bf16 is slower."""
        best = dict.fromkeys(PRECISIONS, math.inf)
        for _ in range(rounds):
            for precision in PRECISIONS:
                best[precision] = min(best[precision], self.time(work, precision))
            if best["bf16"] > best["fp32"]:
                break
        return Decision.of(best["fp32"], best["bf16"])


@contextmanager
def trial_update(
    model: Classifier, config: RunConfig, context: Callable[[], AbstractContextManager[object]]
) -> Iterator[tuple[Update, Optimizer]]:
    """Yield update and optimizer of a classifier in training mode; remove its gradients afterwards.

    Args:
        model: whose weights hardly change.
        config: of the training.
        context: returns the context of a forward pass.
    """
    optimizer = build_optimizer(config.optimizer, model, config.train.layer_decay)
    optimizer.set_rate(LR_FACTOR)
    freezing = Freezing(config.train, model)
    freezing.apply(0)
    freezing.train_mode(0)
    try:
        yield Update(model, model.head, optimizer, context, config.train.clip_norm), optimizer
    finally:
        for parameter in model.parameters():
            parameter.grad = None
        freezing.undo()


@contextmanager
def _random_kept() -> Iterator[None]:
    """Restore the states of the random generators of torch, NumPy and Python."""
    states, of_numpy, of_python = random_state(torch.device("cpu")), np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        set_random_state(torch.device("cpu"), states)
        np.random.set_state(of_numpy)
        random.setstate(of_python)
