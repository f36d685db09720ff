"""Classifiers of small parts, and what checks do with them: updates, walks through objectives, snapshots."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from fgvc_cli.contracts import (
    Backbone,
    BackboneInfo,
    Classifier,
    Closure,
    Evaluation,
    Head,
    Loss,
    Objective,
    Optimizer,
    ParameterGroup,
    Preprocessing,
)
from fgvc_cli.runs.model_file import assemble
from fgvc_cli.testing.check import expect, some
from fgvc_cli.testing.tiny import CLASSES, groups_of, tiny_sgd
from fgvc_cli.training.update import Update, detached

MakeHead = Callable[[BackboneInfo], Head]


def classifier_of(backbone: Backbone, make_head: MakeHead) -> Classifier:
    """Put a head on a backbone and drop what it does not read, as the host does; for K = `CLASSES` classes."""
    head = make_head(backbone.info)
    backbone.prune(head.reads())
    info = backbone.info
    preprocessing = Preprocessing(info.image_size, info.image_size, info.mean, info.std)
    return assemble(backbone, head, [f"class {k}" for k in range(CLASSES)], preprocessing)


def lively(model: nn.Module) -> nn.Module:
    """Give norms statistics, and last layers weights, with which images differ in their scores; return the model."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and module.running_mean is not None:
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)  # type: ignore[arg-type]
        elif isinstance(module, nn.Linear) and module.out_features == CLASSES:
            nn.init.normal_(module.weight, std=0.5)
    return model


def update_of(
    classifier: Classifier,
    optimizer: Optimizer | None = None,
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> Update:
    """Return the host's own update of a classifier, by the kit's optimizer if no other is given."""
    classifier.train()
    own = tiny_sgd(groups_of(classifier.backbone, classifier.head)) if optimizer is None else optimizer
    return Update(classifier, classifier.head, own, autocast)


class Watching(Optimizer):
    """Lets another optimizer step, and remembers which parameters had a gradient and what was evaluated."""

    def __init__(self, groups: Sequence[ParameterGroup], options: Any, inner: Optimizer) -> None:  # noqa: ARG002
        self.groups, self.inner, self.moves_without_grad = groups, inner, inner.moves_without_grad
        self.reached: set[str] = set()
        self.unfit: set[str] = set()
        self.evaluations: list[Evaluation] = []

    def step(self, closure: Closure) -> Evaluation:
        """Step, and look at the gradients that it was made with."""
        evaluation = self.inner.step(closure)
        for group in self.groups:
            for name, parameter in group.parameters.items():
                if parameter.grad is not None:
                    self.reached.add(f"{group.part}.{name}")
                    if not parameter.grad.isfinite().all():
                        self.unfit.add(f"{group.part}.{name}")
        self.evaluations.append(evaluation)
        return evaluation

    def set_rate(self, factor: float) -> None:
        """Set the inner one's."""
        self.inner.set_rate(factor)

    def rates(self) -> dict[str, float]:
        """Return the inner one's."""
        return self.inner.rates()

    def state_dict(self) -> dict[str, Any]:
        """Return the inner one's."""
        return self.inner.state_dict()

    def load_state_dict(self, state: Any) -> None:
        """Load into the inner one."""
        self.inner.load_state_dict(state)


def watched(classifier: Classifier, optimizer: Optimizer | None = None) -> Watching:
    """Return the kit's optimizer (or another one) of a classifier's parameters, watched."""
    groups = groups_of(classifier.backbone, classifier.head)
    return Watching(groups, None, tiny_sgd(groups) if optimizer is None else optimizer)


def walk(classifier: Classifier, images: Tensor, targets: Tensor) -> Iterator[tuple[Objective, Any, Loss]]:
    """Go through a head's objectives without an update: each objective, the head's output, and what its loss says.

    Raises:
        ContractBroken: what is yielded is no `Objective`, or has no images of the batch's size.
    """
    generator = classifier.head.objectives(images, targets)
    try:
        objective = next(generator)
        while True:
            _expect_objective(objective, images)
            output = classifier(objective.images, objective.part)
            yield objective, output, objective.loss(output)
            objective = generator.send(detached(output))
    except StopIteration:
        return


def _expect_objective(objective: Any, images: Tensor) -> None:
    expect(isinstance(objective, Objective), "an Objective", f"{type(objective).__name__} is yielded", "yield one")
    expect(
        objective.images.shape[1:] == images.shape[1:],
        f"images of shape B,{','.join(map(str, images.shape[1:]))} in an objective",
        f"they have shape {tuple(objective.images.shape)}",
        "resize crops to the size of the images",
    )


def trainable(classifier: Classifier) -> list[str]:
    """Name the parameters that are to be trained, as "head.classifier.weight"."""
    return [name for name, parameter in classifier.named_parameters() if parameter.requires_grad]


def copied_state(model: nn.Module) -> dict[str, Tensor]:
    """Return copies of a model's parameters and buffers by name, those that a file leaves out included."""
    named = (*model.named_parameters(), *model.named_buffers())
    return {name: tensor.detach().clone() for name, tensor in named}


def saved_state(model: nn.Module) -> dict[str, Tensor]:
    """Return copies of what a file would hold of a model.

    Raises:
        ContractBroken: its state dict has what is no tensor.
    """
    state = model.state_dict()
    strange = [name for name, value in state.items() if not isinstance(value, Tensor)]
    expect(
        not strange,
        "tensors alone in the state dict",
        f"{some(strange)} {'is' if len(strange) == 1 else 'are'} none",
        "keep numbers in buffers, and everything else in the options",
    )
    return {name: value.detach().clone() for name, value in state.items()}


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> list[str]:
    """Name what is not bit for bit as it was."""
    return [n for n in before if n not in after or not torch.equal(before[n].nan_to_num(), after[n].nan_to_num())]
