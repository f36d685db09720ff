"""The training loop: epochs of updates, validation, and a state on the disk from which to go on."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fgvc_cli import files
from fgvc_cli.config.train_options import TrainOptions
from fgvc_cli.data.augmentation import resolve_where
from fgvc_cli.data.cache.policy import TrainingCache
from fgvc_cli.data.cache.store import CachedImages
from fgvc_cli.data.loading import EvaluationLoader, ImageBatch, TrainingLoader
from fgvc_cli.devices import autocast, compile_in_place, loader_workers
from fgvc_cli.errors import FgvcError
from fgvc_cli.runs.folder import Run
from fgvc_cli.runs.model_file import save_classifier
from fgvc_cli.runs.results import EpochMetrics, ValMetrics
from fgvc_cli.scoring.scores import score
from fgvc_cli.training.callbacks import Callback
from fgvc_cli.training.setup import Job, uses_channels_last
from fgvc_cli.training.staging import Staging
from fgvc_cli.training.state import Best, Interrupt, Interrupted, Progress, load_state_file, save_state
from fgvc_cli.training.update import RunningMetrics, Update

READ_EVERY = 20
"""Updates between two looks at what the device has summed: the only waits in an epoch."""


@dataclass
class Trainer:
    """Trains a job into a run folder.

    Attributes:
        job: what to train.
        run: the folder.
        description: what the model file says of the classifier.
        callbacks: follow the training.
        interrupt: set when a signal asks for an end.
        progress: how far it is.
        cache: what it keeps of decoded images.
    """

    job: Job
    run: Run
    description: dict[str, Any]
    callbacks: Iterable[Callback] = ()
    interrupt: Interrupt = field(default_factory=Interrupt)
    progress: Progress = field(default_factory=Progress)
    cache: TrainingCache = field(default_factory=TrainingCache)

    def __post_init__(self) -> None:
        job, train = self.job, self.job.config.train
        self.device, self.ranks = job.device, job.ranks
        self._clock = time.perf_counter()
        self.progress.weights = job.weights
        self.update = Update(
            job.classifier,
            job.classifier.head,
            job.optimizer,
            lambda: autocast(self.device, job.precision),
            train.clip_norm,
            self.ranks,
        )
        augment = resolve_where(job.config.augment, self.device)
        self.staging = Staging(job.classifier, augment, train.label_smoothing, uses_channels_last(job), self.device)
        self.train_loader = TrainingLoader(
            job.splits.train,
            job.classifier.preprocessing,
            augment,
            train.batch_size,
            train.seed,
            self._loader_workers(),
            pin_memory=self.device.type == "cuda",
            strict=train.strict_data,
            shard=self.ranks.shard,
            agree=self.ranks.agree,
            cached=self.cache.train,
            sampling=train.sampling,
        )
        # Kept between epochs: its processes start once, and it warns once of an image that cannot be read.
        self.val_loader = None if job.splits.val is None else self.evaluation_loader(job.splits.val, self.cache.val)
        self.updates = -(-len(self.train_loader) // train.grad_accum_steps)
        self.schedule = Schedule(train, self.updates)
        self.metrics = RunningMetrics(self.device)

    def load(self) -> None:
        """Go on from the folder's saved state, if it has one, and cut the metrics back to it."""
        if self.run.state_file.is_file():
            job = self.job
            self.progress = load_state_file(self.run.state_file, job.classifier, job.optimizer, self.update)
            if self.progress.best.epoch >= 0 and not self.run.model_file.is_file():
                what = f"{self.run.model_file}, the weights of the best epoch so far, is missing"
                raise FgvcError(f"{what}; {self.run.restart_advice}")
        if self.ranks.first:
            self.run.keep_metrics(self.progress.epoch)
        self.ranks.wait()

    def fit(self) -> Progress:
        """Train to the last epoch, or until early stopping.

        Raises:
            Interrupted: a signal came; the state is saved.
            FgvcError: the loss is not finite, an image cannot be read (strict), memory or disk ran out.
        """
        torch.backends.cudnn.benchmark = True  # every batch but an epoch's last has one size
        if self.job.config.train.compile:
            compile_in_place(self.job.classifier)
        try:
            while self.progress.epoch < self.job.config.train.epochs and not self.stopped_early():
                self._epoch()
        finally:
            self.close_loaders()
        return self.progress

    def close_loaders(self) -> None:
        """End the processes that read images; the test split gets its own."""
        self.train_loader.close()
        if self.val_loader is not None:
            self.val_loader.close()

    def stopped_early(self) -> bool:
        """Say whether validation has not become better for too long."""
        patience = self.job.config.train.patience
        return bool(patience) and self.progress.epoch - 1 - self.progress.patience_best[0] >= patience

    def _epoch(self) -> None:
        started = self._clock = time.perf_counter()
        progress, train = self.progress, self.job.config.train
        if progress.batch == 0:
            torch.manual_seed(_mixed(train.seed, progress.epoch, self.ranks.rank))
            self.metrics = RunningMetrics(self.device)
        else:
            self.metrics.load(progress.metrics)
        images = len(self.job.splits.train)
        done = progress.batch * train.batch_size * self.ranks.count
        for callback in self.callbacks:
            callback.on_epoch_start(progress.epoch + 1, images, max(0, images - done))
        trained = sum(self.updates_of_epoch())
        seconds = time.perf_counter() - started
        metrics = self.metrics.over_all(self.ranks)
        self.ranks.average(self.update.buffers)
        val = self._validate()
        line = EpochMetrics(
            progress.epoch + 1,
            metrics.summary(),
            val,
            self.job.optimizer.rates(),
            self.ranks.count,
            images_per_second=round(trained * self.ranks.count / max(seconds, 1e-9), 2),
            seconds=round(time.perf_counter() - started, 3),
        )
        self._finish_epoch(line)

    def updates_of_epoch(self) -> Generator[int, None, None]:
        """Do what is left of the epoch's updates, each when it is asked for; give how many images it took.

        Whoever times them may stop before the end, and closes the generator then.
        """
        self.job.classifier.train()
        # closed whatever happens: an error that holds on to it would hold on to the processes that load
        with closing(self.train_loader.epoch(self.progress.epoch, skip=self.progress.batch)) as batches:
            yield from self._updates_of(batches)

    def _updates_of(self, batches: Iterator[ImageBatch]) -> Iterator[int]:
        train, progress = self.job.config.train, self.progress
        flags: list[tuple[int, Tensor]] = []
        for group in _groups(batches, train.grad_accum_steps):
            number = progress.epoch * self.updates + progress.batch // train.grad_accum_steps
            factor = self.schedule.factor(number)
            self.job.optimizer.set_rate(factor)
            flags += [(number, found_inf) for found_inf in self._update(group)]
            progress.batch = self.train_loader.position
            looking = len(flags) >= READ_EVERY
            if looking:
                self._check_finite(flags)
                flags = []
            images = sum(len(b.labels) for b in group)
            means = self.metrics.means() if looking else None
            for callback in self.callbacks:
                callback.on_batch_end(images * self.ranks.count, means)
            if number := self.ranks.greatest(self.interrupt.number):
                self._check_finite(flags)
                self._save_interrupted(number)
            yield images
        self._check_finite(flags)

    def _update(self, group: Sequence[ImageBatch]) -> list[Tensor]:
        staged = self.staging(group)
        done = self.update([(batch.images, batch.targets) for batch in staged])
        self.metrics.add(done, [batch.labels for batch in staged])
        return [step.found_inf for step in done]

    def _check_finite(self, flags: Sequence[tuple[int, Tensor]]) -> None:
        """Stop if an update since the last look was not finite; its step was not taken on the device."""
        if not flags:
            return
        found_inf = torch.stack([flag for _, flag in flags]).tolist()
        if not any(found_inf):
            return
        number = flags[found_inf.index(1.0)][0]
        rates = ", ".join(f"{part} {rate:.3g}" for part, rate in self.job.optimizer.rates().items())
        kept = (
            f"The state after epoch {self._saved_epoch()} is kept in {self.run.path}"
            if self._saved_epoch()
            else "No epoch was finished before"
        )
        raise FgvcError(
            f"The loss or its gradient is not finite at step {number + 1} (epoch {self.progress.epoch + 1}, learning "
            f"rate: {rates}). {kept}. Try a lower --lr, a longer warm-up (--set train.warmup_epochs=2) or clipping "
            "(--set train.clip_norm=1)."
        )

    def _saved_epoch(self) -> int:
        return self.progress.epoch if self.run.state_file.is_file() else 0

    def _validate(self) -> ValMetrics | None:
        """Return the figures of the validation split, which the first process scores for all."""
        val, stopped_by = self.ranks.from_first(self._validated)
        if stopped_by:
            self._save_interrupted(stopped_by)
        return val

    def _validated(self) -> tuple[ValMetrics | None, int]:
        """Score the validation split; return its figures, and the number of a signal that came meanwhile."""
        split = self.job.splits.val
        if split is None or self.val_loader is None or not len(split):
            return None, 0
        for callback in self.callbacks:
            callback.on_validation_start(len(split))
        try:
            scores = score(self.job.classifier, self.val_loader, split, self.job.precision, self._scored)
        except _Stopped:
            return None, self.interrupt.number
        self.progress.note_unreadable("val", scores.failures)
        if not len(scores):
            raise FgvcError(
                f"None of the {len(split)} validation images can be read: replace them, or name another --data."
            )
        top5 = float((scores.ranks < 5).mean()) if scores.classes > 5 else None
        loss = scores.loss if math.isfinite(scores.loss) else None
        return ValMetrics(len(scores), loss, float((scores.ranks < 1).mean()), top5), 0

    def evaluation_loader(self, split: Any, cached: CachedImages | None = None) -> EvaluationLoader:
        """Return a loader of a split as prediction sees its images; `cached`: decoded images to read."""
        train = self.job.config.train
        pin = self.device.type == "cuda"
        return EvaluationLoader(
            split,
            self.job.classifier.preprocessing,
            train.batch_size,
            self._loader_workers(),
            pin,
            train.strict_data,
            cached=cached,
        )

    def _loader_workers(self) -> int:
        return loader_workers(self.job.config.train.workers, self.device, self.ranks.launch.local_count)

    def _scored(self, images: int) -> None:
        for callback in self.callbacks:
            callback.on_images_scored(images)
        if self.interrupt:
            raise _Stopped

    def tested(self, images: int) -> None:
        """Count test images as scored; everything is saved by then, so an interruption only ends."""
        for callback in self.callbacks:
            callback.on_images_scored(images)
        if self.interrupt:
            raise Interrupted("Interrupted while scoring the test split", self.run.path, self.interrupt.number)

    def _finish_epoch(self, line: EpochMetrics) -> None:
        """Write the metrics, the best model and the state, in the order in which a kill between them does no harm."""
        progress, val = self.progress, line.val
        for reasons in self.ranks.gathered({key: f.reason for key, f in self.train_loader.failures.items()}):
            self.train_loader.take_over(reasons)
        failed = {key: f.reason for key, f in self.train_loader.failures.items()}
        progress.note_unreadable(self.job.splits.train.name, failed)
        found = Best(progress.epoch)
        if val is not None:
            found = Best(progress.epoch, val.top1, math.inf if val.loss is None else val.loss)
        is_best = val is None or (found.top1, -found.loss) > (progress.best.top1, -progress.best.loss)
        if is_best:
            progress.best = found
            self._save_best()
        last, least = progress.patience_best[0], progress.patience_best[1] + self.job.config.train.min_delta
        if val is None or last < 0 or val.top1 > least:
            progress.patience_best = (progress.epoch, -1.0 if val is None else val.top1)
        progress.epoch, progress.batch, progress.metrics = progress.epoch + 1, 0, {}
        self._count_time()
        if self.ranks.first:
            files.append_line(self.run.metrics_file, line.as_json())
        self._save()
        for callback in self.callbacks:
            callback.on_epoch_end(line, is_best)

    def _save_best(self) -> None:
        if self.ranks.first:
            document = {**self.description, "epoch": self.progress.epoch + 1}
            save_classifier(self.run.model_file, self.job.classifier, document)

    def _save_interrupted(self, number: int) -> None:
        self.progress.metrics = self.metrics.state()
        self._count_time()
        self._save()
        where = f"Interrupted in epoch {self.progress.epoch + 1}; the state is saved"
        raise Interrupted(where, self.run.path, number)

    def _count_time(self) -> None:
        now = time.perf_counter()
        self.progress.seconds += now - self._clock
        self._clock = now

    def _save(self) -> None:
        save_state(self.run.state_file, self.job.classifier, self.job.optimizer, self.update, self.progress)


class _Stopped(Exception):  # noqa: N818, an interruption is no error
    """A signal came while images were scored."""


def _groups(batches: Iterator[ImageBatch], size: int) -> Iterator[list[ImageBatch]]:
    while group := list(islice(batches, size)):
        yield group


def _mixed(seed: int, epoch: int, rank: int) -> int:
    """Return a seed for an epoch that differs from those of other epochs, other processes and other runs."""
    parts = [seed, epoch, rank] if rank else [seed, epoch]
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)


@dataclass(frozen=True)
class Schedule:
    """The factor at each update of a training of `epochs` epochs with `updates` updates each."""

    options: TrainOptions
    updates: int

    @property
    def warmup(self) -> int:
        """Updates in which the rate rises."""
        return self.options.warmup_steps or round(self.options.warmup_epochs * self.updates)

    def notes(self) -> list[str]:
        """Return lines a person should know before training."""
        total = self.options.epochs * self.updates
        if self.warmup < total or not total:
            return []
        return [f"the warm-up takes {self.warmup} updates and the training {total}: the rate never falls"]

    def factor(self, update: int) -> float:
        """Return what the rates are multiplied by at an update, counted from 0 over the whole training."""
        options, warmup = self.options, self.warmup
        if update < warmup:
            return (update + 1) / warmup
        if options.schedule_unit == "epoch":
            update = max(warmup, update // self.updates * self.updates)
        if options.schedule == "constant":
            return 1.0
        if options.schedule == "step":
            return float(options.step_factor ** (update // self.updates // options.step_epochs))
        total = options.epochs * self.updates
        span = total if options.cosine_over == "all" else total - warmup
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (update - warmup) / max(1, span))))
