"""Measure updates, predictions and explanations of a classifier with random weights on random images."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from fgvc_cli.benchmarking.memory import largest_batch
from fgvc_cli.benchmarking.results import Work
from fgvc_cli.benchmarking.timing import Meter, clock_of, summary, synchronize, time_rounds, warm_up
from fgvc_cli.config.run_config import RunConfig
from fgvc_cli.contracts import Classifier, Optimizer, Preprocessing
from fgvc_cli.data.staging import soft_targets
from fgvc_cli.devices import autocast, compile_in_place, has_bf16_units, is_out_of_memory, resolve_precision
from fgvc_cli.explaining.explainers import NamedExplainer
from fgvc_cli.runs.model_file import build_backbone, build_head
from fgvc_cli.scoring.scores import evaluating
from fgvc_cli.training.checkpointing import checkpoint_activations
from fgvc_cli.training.precision import trial_update
from fgvc_cli.training.setup import check_batch, wants_channels_last
from fgvc_cli.training.update import MicroBatch, Update

NO_ENGINE = "unable to find an engine"
"""cuDNN's message if no convolution algorithm finds enough workspace, for a batch larger than one that fits."""


class RandomClassifier:
    """A classifier built as for training, with random weights.

    Args:
        config: backbone, head and training settings.
        classes: K.
        device: where it is placed.

    Raises:
        UsageError: the backbone does not accept the image size, or the head not the backbone.
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
        self.model = Classifier(backbone, head, [str(k) for k in range(classes)], preprocessing).to(device)
        self.layout = torch.channels_last if wants_channels_last(config, backbone) else torch.contiguous_format
        if self.layout is torch.channels_last:
            self.model = self.model.to(memory_format=self.layout)
        checkpoint_activations(self.model, train)
        if train.compile:
            compile_in_place(self.model)

    @property
    def parameters(self) -> dict[str, int]:
        """Return the number of parameters of backbone and head."""
        parts = {"backbone": self.model.backbone, "head": self.model.head}
        return {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context of a forward pass."""
        return autocast(self.device, self.precision)

    def images(self, count: int) -> Tensor:
        """Return random normalized images B,3,S,S in the model's memory format."""
        size = self.config.train.image_size
        return torch.randn(count, 3, size, size, device=self.device).contiguous(memory_format=self.layout)

    def batches(self, config: RunConfig, batch_size: int) -> list[MicroBatch]:
        """Return random batches with soft targets for one update."""
        labels = torch.arange(batch_size, device=self.device) % self.classes
        targets = soft_targets(labels, self.classes, config.train.label_smoothing)
        return [(self.images(batch_size), targets) for _ in range(config.train.grad_accum_steps)]

    def tensors(self) -> Iterator[Tensor]:
        """Yield weights, gradients and buffers."""
        for parameter in self.model.parameters():
            yield parameter
            if parameter.grad is not None:
                yield parameter.grad
        yield from self.model.buffers()


def same_classifier(one: RunConfig, other: RunConfig) -> bool:
    """Return whether two configurations build the same classifier, however it is trained."""
    settings = ("image_size", "mean", "std", "seed", "precision", "channels_last", "compile", "checkpoint_activations")
    same_parts = (one.backbone, one.head) == (other.backbone, other.head)
    return same_parts and all(getattr(one.train, name) == getattr(other.train, name) for name in settings)


def measure_update(classifier: RandomClassifier, config: RunConfig, batch_size: int, meter: Meter) -> Work:
    """Measure whole updates: all objectives of the head, all passes of the optimizer, clipping and steps.

    The optimizer's state exists before anything is counted, as in every update but the first.

    Raises:
        UsageError: training would refuse this batch size.
    """
    check_batch(classifier.model, batch_size)
    with _training(classifier, config) as (update, optimizer):
        # Two images create the optimizer's state; batch normalization needs at least two.
        _eager_update(update, classifier.batches(config, min(batch_size, 2)))
        batches = classifier.batches(config, batch_size)

        def alive() -> Iterator[Tensor]:
            yield from classifier.tensors()
            yield from (leaf for leaf in pytree.tree_leaves(optimizer.state_dict()) if isinstance(leaf, Tensor))
            yield from (tensor for batch in batches for tensor in batch)

        return meter.measure(lambda: update(batches), batch_size * len(batches), alive, config.train.compile)


def measure_bf16(classifier: RandomClassifier, config: RunConfig, batch_size: int, meter: Meter) -> Work | None:
    """Time updates in bf16 where `precision=auto` decides by that; None elsewhere."""
    train = config.train
    if train.precision != "auto" or train.compile or classifier.device.type != "cpu" or not has_bf16_units():
        return None
    classifier.precision = "bf16"
    try:
        with _training(classifier, config) as (update, _):
            batches = classifier.batches(config, batch_size)
            warm = warm_up(lambda: update(batches), classifier.device, 1)
            rounds = time_rounds(lambda: update(batches), meter.seconds, clock_of(classifier.device))
    finally:
        classifier.precision = resolve_precision(train.precision, classifier.device)
    return Work(summary(rounds, round(warm, 3)), batch_size * len(batches))


def fitting_batch(classifier: RandomClassifier, config: RunConfig) -> int:
    """Return the largest batch size whose updates fit into the device's memory, uncompiled.

    Raises:
        FgvcError: none does.
    """
    fitting: list[int] = []

    def fits(batch_size: int) -> bool:
        try:
            with _training(classifier, config) as (update, _):
                batches = classifier.batches(config, batch_size)
                for _ in range(2):  # the second starts with the optimizer's state in memory
                    _eager_update(update, batches)
            synchronize(classifier.device)
        except (RuntimeError, MemoryError) as error:
            if not (is_out_of_memory(error) or (fitting and NO_ENGINE in str(error))):
                raise
            return False
        finally:
            free_memory(classifier.device)
        fitting.append(batch_size)
        return True

    return largest_batch(fits)


def measure_prediction(classifier: RandomClassifier, batch_size: int, meter: Meter) -> Work:
    """Measure predictions: all passes and all scores that the head averages."""
    images = classifier.images(batch_size)

    def predict() -> None:
        with classifier.autocast():
            classifier.model.scores(images)

    with evaluating(classifier.model):
        return meter.measure(
            predict, batch_size, lambda: [*classifier.tensors(), images], classifier.config.train.compile
        )


def measure_explainer(classifier: RandomClassifier, explainer: NamedExplainer, batch_size: int, meter: Meter) -> Work:
    """Measure saliency maps of the predicted classes; the prediction itself is not timed.

    Raises:
        UsageError: the explainer cannot explain this classifier.
        FgvcError: it fails.
    """
    model, images = classifier.model, classifier.images(batch_size)
    with evaluating(model), classifier.autocast():
        targets = model.scores(images).argmax(dim=1)
    targets = targets.clone()  # an inference tensor could not be used outside of inference mode

    def explain() -> None:
        with classifier.autocast():
            explainer.explain(model, images, targets)

    model.eval()
    explainer.check(model)
    return meter.measure(
        explain, batch_size, lambda: [*classifier.tensors(), images, targets], classifier.config.train.compile
    )


def free_memory(device: torch.device) -> None:
    """Collect garbage and empty the caches of the device's allocator."""
    gc.collect()
    with suppress(RuntimeError):  # after a fault every call to a GPU raises; the next measurement reports it
        if device.type == "cuda":
            torch.cuda.empty_cache()
        elif device.type == "mps":
            torch.mps.empty_cache()


def _training(classifier: RandomClassifier, config: RunConfig) -> AbstractContextManager[tuple[Update, Optimizer]]:
    """Return a context with update and optimizer of a classifier in training mode."""
    return trial_update(classifier.model, config, classifier.autocast)


def _eager_update(update: Callable[[Sequence[MicroBatch]], object], batches: Sequence[MicroBatch]) -> None:
    """Run an update without compiling."""
    with torch.compiler.set_stance("force_eager"):
        update(batches)
