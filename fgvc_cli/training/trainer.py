"""The training loop: epochs of updates, validation, and checkpoints to resume from."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fgvc_cli import files
from fgvc_cli.config.train_options import TrainOptions
from fgvc_cli.contracts import FittedHead, Split
from fgvc_cli.data.augmentation import resolve_where
from fgvc_cli.data.cache.policy import TrainingCache
from fgvc_cli.data.cache.store import CachedImages
from fgvc_cli.data.loading import EvaluationLoader, ImageBatch, TrainingLoader
from fgvc_cli.data.staging import StagedBatch, Staging
from fgvc_cli.devices import autocast, compile_in_place, loader_workers
from fgvc_cli.enforcement import ComponentError
from fgvc_cli.errors import FgvcError
from fgvc_cli.formatting import counted
from fgvc_cli.runs.folder import Run
from fgvc_cli.runs.results import EpochAverage, EpochMetrics, ValMetrics
from fgvc_cli.scoring.scores import score, scores_of, val_metrics
from fgvc_cli.training.averaging import AverageOfEpochs, EmaOfWeights, WeightAverage, estimate_statistics
from fgvc_cli.training.callbacks import Callback
from fgvc_cli.training.fitting import fit_head
from fgvc_cli.training.kept_features import FeatureModel, KeptFeatures, keep_features, obstacle
from fgvc_cli.training.setup import Job, wants_channels_last
from fgvc_cli.training.state import Best, Interrupt, Interrupted, Progress, load_state_file, save_state
from fgvc_cli.training.update import RunningMetrics, Update

logger = logging.getLogger(__name__)

READ_EVERY = 20
"""Optimizer steps between two reads of metrics and finiteness flags from the device, the only waits in an epoch."""


@dataclass
class Trainer:
    """Trains a job into a run folder.

    Attributes:
        job: what to train.
        run: the run folder.
        description: metadata for the model file.
        callbacks: observe the training.
        interrupt: set when a signal is received.
        progress: how far the training is.
        cache: cached decoded images.
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
        self._saved_epochs = 0
        self.progress.teacher = "" if job.teacher is None else job.teacher.digest
        self.progress.weights, self.progress.data = job.weights, self.description.get("data", {})
        self.progress.precision = job.precision
        job.freezing.apply(self.progress.epoch)
        self.model = FeatureModel(job.classifier)
        self.kept: KeptFeatures | None = None
        self._may_keep = not obstacle(job)
        self.update = Update(
            job.classifier,
            job.classifier.head,
            job.optimizer,
            lambda: autocast(self.device, job.precision),
            train.clip_norm,
            self.ranks,
            self.model,
        )
        # The first process evaluates and saves; the others have the same weights and need no average.
        self.ema = EmaOfWeights(job.classifier, train.ema) if train.ema and self.ranks.first else None
        averaging = train.average_epochs and self.ranks.first
        self.last_epochs = AverageOfEpochs(job.classifier) if averaging else None
        averages = {"ema": self.ema, "last_epochs": self.last_epochs}
        self.averages: dict[str, WeightAverage] = {name: a for name, a in averages.items() if a is not None}
        self.average: EpochAverage | None = None
        augment = resolve_where(job.config.augment, self.device)
        channels_last = wants_channels_last(job.config, job.classifier.backbone)
        self.staging = Staging(job.classifier, augment, train.label_smoothing, channels_last, self.device)
        self._workers = loader_workers(train.workers, self.device, self.ranks.launch.local_count)
        self.train_loader = TrainingLoader(
            job.splits.train,
            job.classifier.preprocessing,
            augment,
            job.batch_size,
            train.seed,
            self._workers,
            pin_memory=self.device.type == "cuda",
            strict=train.strict_data,
            shard=self.ranks.shard,
            agree=self.ranks.all_true,
            cached=self.cache.train,
            sampling=train.sampling,
        )
        # One loader for all epochs: its workers start once, and it warns once of an unreadable image.
        self.val_loader = None if job.splits.val is None else self.evaluation_loader(job.splits.val, self.cache.val)
        self.updates = -(-len(self.train_loader) // train.grad_accum_steps)
        self.schedule = Schedule(train, self.updates, job.rate_scale)
        self.metrics = RunningMetrics(self.device)

    def load(self) -> None:
        """Load the saved state of the run folder, if there is one, and cut the metrics back to it."""
        if self.run.state_file.is_file():
            job = self.job
            self.progress = load_state_file(
                self.run.state_file, job.classifier, job.optimizer, self.update, self.averages
            )
            self._take_over()
            self.progress.precision = job.precision
            if self.progress.teacher != ("" if job.teacher is None else job.teacher.digest):
                raise FgvcError(
                    f"the teacher (`train.teacher={job.config.train.teacher}`) has changed since {self.run.path} was "
                    f"interrupted; {self.run.restart_advice}"
                )
            changes, self.progress.data = self.progress.data.get("changes", []), self.description.get("data", {})
            if self.progress.data.get("changes", []) != changes:  # the rest of an epoch over other images is no rest
                self.progress.batch, self.progress.metrics = 0, {}
            if (self.progress.best.epoch >= 0 or self.progress.start) and not self.run.model_file.is_file():
                what = f"{self.run.model_file}, the weights of the best epoch so far, is missing"
                raise FgvcError(f"{what}; {self.run.restart_advice}")
        self._saved_epochs = self.progress.epoch
        if self.ranks.first:
            self.run.keep_metrics(self.progress.epoch)
        self.ranks.barrier()

    def _take_over(self) -> None:
        """Adapt a state that another number of processes saved: its epoch goes on at the same image of the order.

        Dropout draws other numbers from there on. If no batch of the processes of now begins at that image, the rest of
        the update that it is in is left out.
        """
        progress, train, count = self.progress, self.job.config.train, self.ranks.count
        before, progress.processes = progress.processes, count
        if before == count:
            return
        logger.warning(
            f"{self.run.path} was trained by {counted(before, 'process', 'processes')} and goes on with {count}, not "
            f"bit for bit; an update now has {self.job.images_per_update} images"
        )
        if progress.batch:
            each = train.batch_size // before if train.split_batches else train.batch_size
            done = -(-progress.batch * each * before // self.job.images_per_update)
            progress.batch = min(done * train.grad_accum_steps, len(self.train_loader))
            torch.manual_seed(_epoch_seed(train.seed, progress.epoch, self.ranks.rank, progress.batch))

    def fit(self) -> Progress:
        """Train to the last epoch, or until early stopping.

        Raises:
            Interrupted: a signal was received; the state is saved.
            FgvcError: the loss is not finite, an image cannot be read (strict), or memory or disk is full.
        """
        torch.backends.cudnn.benchmark = True  # all batches have the same size, except the last of an epoch
        if self.job.config.train.compile:
            compile_in_place(self.job.classifier)
        try:
            if self.job.config.train.head_init == "probe" and not self.run.state_file.is_file():
                self._try_start()
            while self.progress.epoch < self.job.config.train.epochs and not self.stopped_early():
                if isinstance(self.job.classifier.head, FittedHead):
                    self._fit_head()
                else:
                    self._epoch()
            self._close_features()  # a resumed run, which scores the average again, has none
            if self.last_epochs is not None and self.last_epochs.count:
                self._try_average(self.last_epochs)
        except ComponentError as error:
            raise ComponentError(f"{error}. {self._saved()}") from (error.__cause__ or error)
        finally:
            self._close_features()
            self.close_loaders()
        return self.progress

    def close_loaders(self) -> None:
        """Stop the workers of the training and validation loaders."""
        self.train_loader.close()
        if self.val_loader is not None:
            self.val_loader.close()

    def stopped_early(self) -> bool:
        """Return whether validation top-1 has not improved for `patience` epochs."""
        patience = self.job.config.train.patience
        return bool(patience) and self.progress.epoch - 1 - self.progress.patience_best[0] >= patience

    def evaluated_weights(self) -> AbstractContextManager[None]:
        """Return a context in which the classifier has the weights to evaluate and save: averaged with `train.ema`."""
        return nullcontext() if self.ema is None else self.ema.applied()

    def _epoch(self) -> None:
        started = self._clock = time.perf_counter()
        progress, train = self.progress, self.job.config.train
        if progress.batch == 0:
            torch.manual_seed(_epoch_seed(train.seed, progress.epoch, self.ranks.rank))
            self.metrics = RunningMetrics(self.device)
        else:
            self.metrics.load(progress.metrics)
        self._keep_features()
        images = len(self.job.splits.train)
        done = progress.batch * self.job.batch_size * self.ranks.count
        for callback in self.callbacks:
            callback.on_epoch_start(progress.epoch + 1, images, max(0, images - done))
        trained = sum(self.updates_of_epoch())
        seconds = time.perf_counter() - started
        metrics = self.metrics.over_all(self.ranks)
        self.ranks.average_buffers(self.update.buffers)
        with self.evaluated_weights():
            val, signal = self.ranks.broadcast(self._validate)  # the first process scores for all
        if signal:
            self._save_interrupted(signal)
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

    def _fit_head(self) -> None:
        """Fit the head to the features of all images, in place of an epoch."""
        self._clock = time.perf_counter()
        try:
            line, unreadable = fit_head(self.job, lambda _: self.interrupt.check("computing features", self.run.path))
        except Interrupted:
            self._save()
            raise
        self.progress.unreadable.update(unreadable)
        self._finish_epoch(line)

    def _keep_features(self) -> None:
        """Compute the features of a frozen backbone before its first epoch, and close them after its last."""
        whole = self.job.freezing.whole(self.progress.epoch)
        if not whole:
            self._close_features()
        if whole and self._may_keep:
            self._may_keep = False
            self.kept = keep_features(self.job, self.model, (self.train_loader, self.val_loader), self._on_features)

    def _close_features(self) -> None:
        if self.kept is not None:
            self.kept.close()
            self.kept = None

    def _on_features(self, images: int) -> None:  # noqa: ARG002
        if self.ranks.count == 1:  # several stop together, after an update
            self.interrupt.check("computing features", self.run.path)

    def updates_of_epoch(self) -> Generator[int, None, None]:
        """Run the remaining updates of the epoch one by one, yielding the number of images of each.

        A caller that stops before the end must close the generator.
        """
        train, progress = self.job.config.train, self.progress
        if self.job.freezing.apply(progress.epoch):
            self.update.take_parameters()
        self.job.freezing.train_mode(progress.epoch)
        flags: list[tuple[int, Tensor]] = []
        # Closed in any case: an error that references the iterator would keep the workers alive.
        with closing(self.train_loader.epoch(progress.epoch, skip=progress.batch)) as batches:
            while group := list(islice(batches, train.grad_accum_steps)):
                number = progress.epoch * self.updates + progress.batch // train.grad_accum_steps
                self.job.optimizer.set_rate(self.schedule.factor(number))
                flags += [(number, found_inf) for found_inf in self._update(group)]
                progress.batch = self.train_loader.position
                means = None
                if len(flags) >= READ_EVERY:
                    self._check_finite(flags)
                    flags, means = [], self.metrics.means()
                images = sum(len(b.labels) for b in group)
                for callback in self.callbacks:
                    callback.on_batch_end(images * self.ranks.count, means)
                if signal := self.ranks.maximum(self.interrupt.number):
                    self._check_finite(flags)
                    self._save_interrupted(signal)
                yield images
            self._check_finite(flags)

    def _update(self, group: Sequence[ImageBatch]) -> list[Tensor]:
        with nullcontext(self.staging(group)) if self.kept is None else self.kept.staged(group, self.staging) as staged:
            sized = (self.job.sizes.resized(batch.images, self.progress.epoch, self.staging.layout) for batch in staged)
            targets = map(self._targets, staged)  # a teacher gets images of full size
            steps = self.update(list(zip(sized, targets, strict=True)))
        if self.ema is not None:
            self.ema.update()
        self.metrics.add(steps, [batch.labels for batch in staged])
        return [step.found_inf for step in steps]

    def _targets(self, batch: StagedBatch) -> Tensor:
        """Return the targets of a batch, with class weights, teacher and logit adjustment as far as they are on."""
        balance, teacher = self.job.balance, self.job.teacher
        targets = balance.weighted(batch.targets)
        if teacher is not None:
            targets = teacher(batch.images, targets, joined=balance.offset is None)
        return balance.adjusted(targets)

    def _check_finite(self, flags: Sequence[tuple[int, Tensor]]) -> None:
        """Raise if one of the updates since the last check was not finite; the device has skipped its step."""
        found_inf = torch.stack([flag for _, flag in flags]).tolist() if flags else []
        if not any(found_inf):
            return
        number = flags[found_inf.index(1.0)][0]
        rates = ", ".join(f"{part} {rate:.3g}" for part, rate in self.job.optimizer.rates().items())
        raise FgvcError(
            f"The loss or its gradient is not finite at step {number + 1} (epoch {self.progress.epoch + 1}, learning "
            f"rate: {rates}). {self._saved()}. Try a lower `lr`, a longer warm-up (`train.warmup_epochs=2`) or "
            "gradient clipping (`train.clip_norm=1`)."
        )

    def _saved(self) -> str:
        """Say which state is saved."""
        saved = self._saved_epochs
        return f"The state after epoch {saved} is saved in {self.run.path}" if saved else "No epoch is finished"

    def _validate(self) -> tuple[ValMetrics | None, int]:
        """Score the validation split; return its metrics, or the number of the signal that interrupted it."""
        split = self.job.splits.val
        if split is None or self.val_loader is None or not len(split):
            return None, 0
        for callback in self.callbacks:
            callback.on_validation_start(len(split))
        try:
            kept = None if self.kept is None or self.kept.val is None else self.kept.scores
            scores = score(self.job.classifier, self.val_loader, split, self.job.precision, self.on_images_scored, kept)
        except Interrupted as interrupted:
            return None, interrupted.signal
        self.progress.note_unreadable("val", scores.failures)
        if not len(scores):
            raise FgvcError(f"None of the {len(split)} validation images can be read; replace them, or change `data`")
        return val_metrics(scores), 0

    def evaluation_loader(self, split: Split, cached: CachedImages | None = None) -> EvaluationLoader:
        """Return a loader of a split without augmentation; `cached`: decoded images to read."""
        train = self.job.config.train
        pin = self.device.type == "cuda"
        preprocessing, strict = self.job.classifier.preprocessing, train.strict_data
        return EvaluationLoader(split, preprocessing, self.job.batch_size, self._workers, pin, strict, cached=cached)

    def on_images_scored(self, images: int) -> None:
        """Report scored images of the validation or the test split.

        Raises:
            Interrupted: a signal was received.
        """
        for callback in self.callbacks:
            callback.on_images_scored(images)
        self.interrupt.check("scoring", self.run.path)

    def _finish_epoch(self, line: EpochMetrics) -> None:
        """Write the best model, the metrics and the state, in an order that survives a kill between any two."""
        progress, val = self.progress, line.val
        for reasons in self.ranks.all_gather(self.train_loader.failures):
            self.train_loader.add_failures(reasons)
        progress.note_unreadable(self.job.splits.train.name, dict(self.train_loader.failures))
        found = Best.of(progress.epoch, val)
        is_best = found.better_than(progress.best)
        with self.evaluated_weights():
            if is_best:
                progress.best = found
                if self.ranks.first:
                    document = {**self.description, "epoch": progress.epoch + 1}
                    self.job.save_model(self.run.model_file, document)
            train = self.job.config.train
            if self.last_epochs is not None and progress.epoch >= train.epochs - train.average_epochs:
                self.last_epochs.include()
        last, least = progress.patience_best[0], progress.patience_best[1] + self.job.config.train.min_delta
        if val is None or last < 0 or val.top1 > least:
            progress.patience_best = (progress.epoch, -1.0 if val is None else val.top1)
        progress.epoch, progress.batch, progress.metrics = progress.epoch + 1, 0, {}
        if self.ranks.first:
            files.append_line(self.run.metrics_file, line.as_json())
        self._save()
        for callback in self.callbacks:
            callback.on_epoch_end(line, is_best)

    def _try_start(self) -> None:
        """Score the initial weights and save them, so that the model is never worse on validation data than its start.

        Only a start from a probe is worth scoring. It takes no random numbers.
        """
        self._keep_features()
        val, signal = self.ranks.broadcast(self._validate)
        if signal:
            raise Interrupted("Interrupted while scoring", self.run.path, signal)
        if val is None:
            return
        self.progress.start, self.progress.best = val.as_json(), Best.of(-1, val)
        if self.ranks.first:
            self.job.save_model(self.run.model_file, {**self.description, "epoch": 0})

    def _try_average(self, average: AverageOfEpochs) -> None:
        """Score the average of the last epochs, with its own batch-norm statistics; save it if it is the best.

        The state does not change: a run that is killed here does this again when it is resumed.
        """
        job, last = self.job, self.progress.epoch - 1
        torch.manual_seed(_epoch_seed(job.config.train.seed, job.config.train.epochs, 0))
        with average.applied():
            job.freezing.train_mode(last)
            with closing(self.evaluation_loader(job.splits.train)) as loader:
                pixels = (batch.pixels for batch in self._until_interrupted(loader))
                estimate_statistics(job.classifier, pixels, lambda p: scores_of(job.classifier, p, job.precision))
            val, signal = self._validate()
            if signal:
                raise Interrupted("Interrupted while scoring", self.run.path, signal)
            found = Best.of(last, val)
            saved = found.better_than(self.progress.best)
            if saved:
                self.progress.best = found
                document = {**self.description, "epoch": last + 1, "average_epochs": average.count}
                job.save_model(self.run.model_file, document)
        self.average = EpochAverage(average.count, val, saved)

    def _until_interrupted(self, loader: EvaluationLoader) -> Iterator[ImageBatch]:
        for batch in loader:
            if self.interrupt:
                raise Interrupted("Interrupted while averaging epochs", self.run.path, self.interrupt.number)
            yield batch

    def _save_interrupted(self, signal: int) -> None:
        self.progress.metrics = self.metrics.state()
        self._save()
        where = f"Interrupted in epoch {self.progress.epoch + 1}; the state is saved"
        raise Interrupted(where, self.run.path, signal)

    def _save(self) -> None:
        now = time.perf_counter()
        self.progress.seconds += now - self._clock
        self._clock = now
        save_state(
            self.run.state_file, self.job.classifier, self.job.optimizer, self.update, self.progress, self.averages
        )
        self._saved_epochs = self.progress.epoch


def _epoch_seed(seed: int, epoch: int, rank: int, batch: int = 0) -> int:
    """Return a seed that differs between epochs, processes and runs; `batch`: from there on in the epoch."""
    parts = [seed, epoch, rank, batch] if batch else [seed, epoch, rank] if rank else [seed, epoch]
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)


@dataclass(frozen=True)
class Schedule:
    """The learning-rate schedule: a factor for the rates of the optimizer at each update.

    Attributes:
        options: of the training.
        updates: number of updates per epoch.
        scale: factor of all rates (`train.lr_scaling`).
    """

    options: TrainOptions
    updates: int
    scale: float = 1.0

    @property
    def warmup(self) -> int:
        """Number of updates of the warm-up."""
        return self.options.warmup_steps or round(self.options.warmup_epochs * self.updates)

    def notes(self) -> list[str]:
        """Return lines a user should know before training."""
        total = self.options.epochs * self.updates
        notes = []
        if self.scale != 1:
            without = "" if self.warmup else "; without a warm-up it may diverge (`train.warmup_epochs=5`)"
            notes.append(f"learning rates are multiplied by {self.scale:g} (linear scaling rule){without}")
        if self.warmup >= total > 0:
            notes.append(f"warm-up takes {self.warmup} of {total} updates: the learning rate never decays")
        return notes

    def factor(self, update: int) -> float:
        """Return the factor at an update, counted from 0 over the whole training.

        Reference: Goyal et al. 2017, Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour, arXiv 1706.02677,
        section 2.1 (`scale`) and 2.2 (warm-up).
        """
        return self.scale * self._of_schedule(update)

    def _of_schedule(self, update: int) -> float:
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
