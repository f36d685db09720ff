"""What of the backbone is frozen in each epoch: parameters, and the statistics of batch norms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from fgvc_cli.config.train_options import TrainOptions
from fgvc_cli.contracts import Backbone, Classifier
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.formatting import counted


@dataclass(frozen=True)
class Freezing:
    """The schedule of frozen stages, a function of the epoch alone, and its application to a classifier.

    A frozen parameter has no gradient and therefore no update, weight decay or optimizer state. A module with frozen
    parameters only is in evaluation mode: its batch-norm statistics are fixed, and nothing in it is dropped. No
    graph is built up to the first parameter that trains.

    Attributes:
        options: of the training.
        classifier: whose backbone is frozen.
        stages: the stage of each parameter of the backbone, 0 for the stem; all 0 if the stages do not matter.
        trainable: the names of those that train when nothing is frozen.
    """

    options: TrainOptions
    classifier: Classifier
    stages: Mapping[str, int] = field(init=False)
    trainable: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        """Check that the settings fit the classifier.

        Raises:
            UsageError: the backbone has fewer stages, the head needs its batch statistics, or nothing would train, or
                no adapter of LoRA.
            FgvcError: the backbone does not say which stage a parameter is in.
        """
        options, backbone = self.options, self.classifier.backbone
        object.__setattr__(self, "stages", _stages(options, backbone))
        found = frozenset(name for name, parameter in backbone.named_parameters() if parameter.requires_grad)
        object.__setattr__(self, "trainable", found)
        if options.freeze != "none" or options.batch_norm == "fixed":
            self._check()

    def frozen_stages(self, epoch: int) -> int:
        """Return the number of frozen stages, the stem included, in an epoch counted from 0."""
        options = self.options
        if options.freeze == "none":
            return 0
        count = self._at_first
        first = options.freeze_epochs or options.unfreeze_epochs
        if not first or epoch < first:
            return count
        if not options.unfreeze_epochs:
            return 0
        return max(0, count - 1 - (epoch - first) // options.unfreeze_epochs)

    def whole(self, epoch: int) -> bool:
        """Return whether the whole backbone is frozen in an epoch."""
        return self.options.freeze != "none" and self.frozen_stages(epoch) == self._count

    def apply(self, epoch: int) -> bool:
        """Set which parameters train in an epoch; return whether that has changed."""
        frozen, changed = self._frozen(epoch), False
        for name, parameter in self.classifier.backbone.named_parameters():
            trains = name in self.trainable and name not in frozen
            changed |= parameter.requires_grad != trains
            parameter.requires_grad_(trains)
            if not trains:
                parameter.grad = None
        return changed

    def undo(self) -> None:
        """Let every parameter train that trains when nothing is frozen."""
        for name, parameter in self.classifier.backbone.named_parameters():
            parameter.requires_grad_(name in self.trainable)

    def train_mode(self, epoch: int) -> None:
        """Put the classifier in training mode, except for the modules that are frozen in the epoch."""
        self.classifier.train()
        backbone = self.classifier.backbone
        for module in _within(backbone, "", self._frozen(epoch)):
            module.eval()
        if self.options.batch_norm == "fixed":
            for module in backbone.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()

    def ever_in_training_mode(self) -> list[nn.Module]:
        """Return the modules that are in training mode in the last epoch, when the fewest are frozen."""
        modes = {module: module.training for module in self.classifier.modules()}
        self.train_mode(max(0, self.options.epochs - 1))
        found = [module for module in modes if module.training]
        for module, mode in modes.items():
            module.training = mode
        return found

    def notes(self) -> list[str]:
        """Return a line on what is frozen when."""
        options = self.options
        if options.freeze == "none":
            return []
        if not self._at_first:
            return [
                f"`train.freeze={options.freeze}`: nothing is frozen, because the stages of this backbone are unknown"
            ]
        part = "the backbone" if options.freeze == "all" else f"the stem and {counted(self._at_first - 1, 'stage')}"
        first = options.freeze_epochs or options.unfreeze_epochs
        time = f"for {counted(first, 'epoch')}" if first else "throughout"
        if options.unfreeze_epochs:
            time += f", then one stage less every {counted(options.unfreeze_epochs, 'epoch')}"
        trained, total = self.trained(0), sum(p.numel() for p in self.classifier.parameters())
        return [f"`train.freeze={options.freeze}` ({part}) {time}; {trained:,} of {total:,} parameters train"]

    def trained(self, epoch: int) -> int:
        """Return the number of parameters, of backbone and head, that train in an epoch."""
        frozen, backbone = self._frozen(epoch), self.classifier.backbone
        of_backbone = sum(p.numel() for n, p in backbone.named_parameters() if n in self.trainable and n not in frozen)
        return of_backbone + sum(p.numel() for p in self.classifier.head.parameters() if p.requires_grad)

    @property
    def _count(self) -> int:
        """Number of stages, the stem included."""
        return max(self.stages.values(), default=0) + 1

    @property
    def _at_first(self) -> int:
        """Number of stages that are frozen in the first epoch, the stem included."""
        freeze = self.options.freeze
        if isinstance(freeze, int):
            return freeze + 1
        return {"none": 0, "half": self._count // 2, "all": self._count}[freeze]

    def _frozen(self, epoch: int) -> frozenset[str]:
        count = self.frozen_stages(epoch)
        return frozenset(name for name, stage in self.stages.items() if stage < count)

    def _check(self) -> None:
        options, name = self.options, self.classifier.backbone.info.name
        if isinstance(options.freeze, int) and options.freeze >= self._count:
            raise UsageError(
                f"`train.freeze={options.freeze}`: {name} has {counted(self._count - 1, 'stage')} here; use at most "
                f"`train.freeze={self._count - 1}`, or `train.freeze=all`"
            )
        if self.classifier.head.needs_batch_statistics:
            raise UsageError(
                f"`train.freeze={options.freeze}`, `train.batch_norm={options.batch_norm}`: the head "
                f"{type(self.classifier.head).__name__} needs batch statistics of the backbone, which a frozen one "
                "does not compute; use `train.freeze=none` and `train.batch_norm=batch`"
            )
        if not self.trained(0):
            raise UsageError(f"`train.freeze={options.freeze}`: no parameter would train; use `train.freeze=none`")
        if options.lora_rank and self._frozen(max(0, options.epochs - 1)) >= self.trainable:
            raise UsageError(
                f"`train.freeze={options.freeze}` freezes all adapters (`train.lora_rank={options.lora_rank}`): they "
                "would train nothing; use `train.freeze=none`"
            )


def _stages(options: TrainOptions, backbone: Backbone) -> dict[str, int]:
    """Return the stage of each parameter; all 0 if stages do not matter, or half of unknown ones are to be frozen."""
    alike = {name: 0 for name, _ in backbone.named_parameters()}
    if options.freeze in ("none", "all") and not options.unfreeze_epochs:
        return alike
    try:
        return backbone.layer_depths("stage")
    except FgvcError:
        if options.freeze == "half":  # what a recipe says for every backbone
            return alike
        raise


def _within(module: nn.Module, path: str, frozen: frozenset[str]) -> Iterator[nn.Module]:
    """Yield the outermost modules whose parameters are all frozen; those without any follow the module they are in."""
    names = [f"{path}{name}" for name, _ in module.named_parameters()]
    if names and frozen.issuperset(names):
        yield module
    elif not frozen.isdisjoint(names):
        for name, child in module.named_children():
            yield from _within(child, f"{path}{name}.", frozen)
