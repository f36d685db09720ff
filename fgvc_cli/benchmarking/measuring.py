"""Measuring the updates, predictions and explanations of one classifier with random weights on random images."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress

import torch
from torch import Tensor

from fgvc_cli.benchmarking.memory import largest_batch, tensors_in
from fgvc_cli.benchmarking.results import Work
from fgvc_cli.benchmarking.timing import Meter, synchronize
from fgvc_cli.config.run_config import RunConfig
from fgvc_cli.contracts import Optimizer, Preprocessing
from fgvc_cli.devices import autocast, compile_in_place, is_out_of_memory, resolve_precision
from fgvc_cli.explaining.explainers import NamedExplainer
from fgvc_cli.runs.model_file import assemble, build_backbone, build_head
from fgvc_cli.scoring.scores import evaluating
from fgvc_cli.training.setup import build_optimizer, check_batch, wants_channels_last
from fgvc_cli.training.staging import soft_targets
from fgvc_cli.training.update import MicroBatch, Update

SLOW = 1e-3
"""Of the learning rate: random images teach nothing, and weights that stay what they are keep all rounds alike. An
update is the same work at any rate."""
NO_ENGINE = "unable to find an engine"
"""In torch's message where no way of cuDNN to convolve finds room to work in: for a batch larger than one that fits."""
FEW = 2
"""Images of the update that makes the optimizer's state: batch normalization needs as many."""


class Subject:
    """A classifier that is measured: built as a training would, with random weights.

    Args:
        config: backbone, head and how they are trained.
        classes: K.
        device: where it goes.

    Raises:
        UsageError: the backbone does not take the image size, or the head not the backbone.
        FgvcError: a component breaks its contract.
    """

    def __init__(self, config: RunConfig, classes: int, device: torch.device) -> None:
        train = config.train
        self.config, self.classes, self.device = config, classes, device
        self.precision = resolve_precision(train.precision, device)
        torch.manual_seed(train.seed)
        backbone = build_backbone(config.backbone.component, config.backbone.options, train.image_size)
        head = build_head(config.head.component, config.head.options, backbone, classes)
        mean, std = train.mean or backbone.info.mean, train.std or backbone.info.std
        preprocessing = Preprocessing(train.image_size, train.image_size, mean, std)
        classifier = assemble(backbone, head, [str(k) for k in range(classes)], preprocessing).to(device)
        self.layout = torch.contiguous_format
        if wants_channels_last(config, backbone):
            self.layout = torch.channels_last
            classifier = classifier.to(memory_format=self.layout)
        self.classifier = classifier
        if train.compile:
            compile_in_place(self.classifier)

    @property
    def parameters(self) -> dict[str, int]:
        """Return how many parameters each part has."""
        parts = {"backbone": self.classifier.backbone, "head": self.classifier.head}
        return {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context of a forward pass."""
        return autocast(self.device, self.precision)

    def images(self, count: int) -> Tensor:
        """Return random images B,3,S,S as they come to the model: normalized, in its memory format."""
        size = self.config.train.image_size
        return torch.randn(count, 3, size, size, device=self.device).contiguous(memory_format=self.layout)

    def batches(self, config: RunConfig, batch_size: int) -> list[MicroBatch]:
        """Return the random batches of one update, with targets as a training has them."""
        labels = torch.arange(batch_size, device=self.device) % self.classes
        targets = soft_targets(labels, self.classes, config.train.label_smoothing)
        return [(self.images(batch_size), targets) for _ in range(config.train.grad_accum_steps)]

    def tensors(self) -> Iterator[Tensor]:
        """Give weights, buffers and the gradients that there are now."""
        for parameter in self.classifier.parameters():
            yield parameter
            if parameter.grad is not None:
                yield parameter.grad
        yield from self.classifier.buffers()


def same_subject(one: RunConfig, other: RunConfig) -> bool:
    """Say whether two configurations build the same classifier, whatever it is trained with."""
    settings = ("image_size", "mean", "std", "seed", "precision", "channels_last", "compile")
    same_parts = (one.backbone, one.head) == (other.backbone, other.head)
    return same_parts and all(getattr(one.train, name) == getattr(other.train, name) for name in settings)


def measure_update(subject: Subject, config: RunConfig, batch_size: int, meter: Meter) -> Work:
    """Measure whole updates: all objectives of the head, all passes of the optimizer, clipping and steps.

    The optimizer's state is there before anything is counted, as in all updates but the first.

    Raises:
        UsageError: a training would refuse batches of that size.
    """
    check_batch(subject.classifier, batch_size)
    with _training(subject, config) as (update, optimizer):
        _eager_update(update, subject.batches(config, min(batch_size, FEW)))
        batches = subject.batches(config, batch_size)

        def alive() -> Iterator[Tensor]:
            yield from subject.tensors()
            yield from tensors_in(optimizer.state_dict())
            yield from (tensor for batch in batches for tensor in batch)

        images = batch_size * len(batches)
        return meter.measure(lambda: update(batches), images, alive, config.train.compile)


def fitting_batch(subject: Subject, config: RunConfig) -> int:
    """Return the largest batch whose updates fit into the device's memory, uncompiled.

    Raises:
        FgvcError: none does.
    """

    fitting: list[int] = []

    def fits(batch_size: int) -> bool:
        try:
            with _training(subject, config) as (update, _):
                batches = subject.batches(config, batch_size)
                for _ in range(2):  # in the second the optimizer's state is there from the start
                    _eager_update(update, batches)
            synchronize(subject.device)
        except (RuntimeError, MemoryError) as error:
            if not (is_out_of_memory(error) or (fitting and NO_ENGINE in str(error))):
                raise
            return False
        finally:
            free_memory(subject.device)
        fitting.append(batch_size)
        return True

    return largest_batch(fits)


def measure_prediction(subject: Subject, batch_size: int, meter: Meter) -> Work:
    """Measure predictions: whatever passes the head takes, and all scores that it averages."""
    images = subject.images(batch_size)

    def predict() -> None:
        with subject.autocast():
            subject.classifier.scores(images)

    with evaluating(subject.classifier):
        return meter.measure(predict, batch_size, lambda: [*subject.tensors(), images], subject.config.train.compile)


def measure_explainer(subject: Subject, explainer: NamedExplainer, batch_size: int, meter: Meter) -> Work:
    """Measure the heat maps of the predicted classes, which are known before.

    Raises:
        UsageError: the explainer cannot explain this classifier.
        FgvcError: it fails.
    """
    classifier, images = subject.classifier, subject.images(batch_size)
    with evaluating(classifier), subject.autocast():
        targets = classifier.scores(images).argmax(dim=1)
    targets = targets.clone()  # one that was made in inference mode could not be used outside of it

    def explain() -> None:
        with subject.autocast():
            explainer.explain(classifier, images, targets)

    classifier.eval()
    explainer.check(classifier)
    return meter.measure(
        explain, batch_size, lambda: [*subject.tensors(), images, targets], subject.config.train.compile
    )


def free_memory(device: torch.device) -> None:
    """Give back what nothing holds any more, caches of the device's allocator included."""
    gc.collect()
    with suppress(RuntimeError):  # after a fault a GPU answers everything so; the next piece of work will tell
        if device.type == "cuda":
            torch.cuda.empty_cache()
        elif device.type == "mps":
            torch.mps.empty_cache()


@contextmanager
def _training(subject: Subject, config: RunConfig) -> Iterator[tuple[Update, Optimizer]]:
    """Give what makes updates of a classifier, in training mode; afterwards it has no gradients."""
    classifier = subject.classifier
    optimizer = build_optimizer(config.optimizer, classifier)
    optimizer.set_rate(SLOW)
    classifier.train()
    try:
        yield Update(classifier, classifier.head, optimizer, subject.autocast, config.train.clip_norm), optimizer
    finally:
        for parameter in classifier.parameters():
            parameter.grad = None


def _eager_update(update: Callable[[Sequence[MicroBatch]], object], batches: Sequence[MicroBatch]) -> None:
    """Make an update without compiling anything for it."""
    with torch.compiler.set_stance("force_eager"):
        update(batches)
