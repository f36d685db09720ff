"""Classifiers built from tiny components, with their updates, objectives and snapshots, for checks."""

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
    ComposedOptimizer,
    Evaluation,
    FittedHead,
    Head,
    LabeledFeatures,
    Loss,
    Model,
    Objective,
    Optimizer,
    ParameterGroup,
    Preprocessing,
)
from fgvc_cli.testing.check import NotApplicable, expect, some
from fgvc_cli.testing.tiny import CLASSES, groups_of, tiny_sgd
from fgvc_cli.training.update import Update, detached


def classifier_of(backbone: Backbone, make_head: Callable[[BackboneInfo], Head]) -> Classifier:
    """Put a head for `CLASSES` classes on a backbone and prune the backbone, as the host does."""
    head = make_head(backbone.info)
    backbone.prune(head.reads())
    info = backbone.info
    preprocessing = Preprocessing(info.image_size, info.image_size, info.mean, info.std)
    return Classifier(backbone, head, [f"class {k}" for k in range(CLASSES)], preprocessing)


def spread_scores(model: nn.Module) -> nn.Module:
    """Randomize norm statistics and classification layers so that scores differ between images; return the model."""
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
    """Return the host's update of a classifier in training mode, by default with plain SGD.

    Raises:
        NotApplicable: the head is fitted instead of trained.
    """
    _require_objectives(classifier)
    classifier.train()
    chosen = tiny_sgd(groups_of(classifier.backbone, classifier.head)) if optimizer is None else optimizer
    return Update(classifier, classifier.head, chosen, autocast)


class Recording(ComposedOptimizer):
    """Lets a base optimizer step and records which parameters had a gradient.

    Attributes:
        with_grad: names of parameters, as "head.weight", that had a gradient in some step.
        not_finite: names of those with a gradient that was not finite.
    """

    def __init__(self, groups: Sequence[ParameterGroup], options: Any, base: Optimizer) -> None:
        super().__init__(groups, options, base)
        self.with_grad: set[str] = set()
        self.not_finite: set[str] = set()

    def step(self, closure: Closure) -> Evaluation:
        """Step, and record the gradients."""
        evaluation = self.base.step(closure)
        for group in self.groups:
            for name, parameter in group.parameters.items():
                if parameter.grad is not None:
                    self.with_grad.add(f"{group.part}.{name}")
                    if not parameter.grad.isfinite().all():
                        self.not_finite.add(f"{group.part}.{name}")
        return evaluation


def recording(classifier: Classifier, optimizer: Optimizer | None = None) -> Recording:
    """Return an optimizer (by default plain SGD) of a classifier's parameters, with a record of gradients."""
    groups = groups_of(classifier.backbone, classifier.head)
    return Recording(groups, None, tiny_sgd(groups) if optimizer is None else optimizer)


def objectives_of(
    classifier: Classifier, images: Tensor, targets: Tensor, model: Model | None = None
) -> Iterator[tuple[Objective, Any, Loss]]:
    """Evaluate a head's objectives without updates: yield each objective, the head's output, and the loss.

    Args:
        classifier: has the head.
        images, targets: a batch.
        model: computes the outputs; None: the classifier.

    Raises:
        ContractError: the head yields something else, or images of another size.
        NotApplicable: the head is fitted instead of trained.
    """
    _require_objectives(classifier)
    generator = classifier.head.objectives(images, targets)
    try:
        objective: Any = next(generator)
        while True:
            kind = f"{type(objective).__name__} is yielded"
            expect(isinstance(objective, Objective), "an Objective", kind, "yield one")
            expect(
                objective.images.shape[1:] == images.shape[1:],
                f"images of shape B,{','.join(map(str, images.shape[1:]))} in an objective",
                f"they have shape {tuple(objective.images.shape)}",
                "resize crops to the size of the images",
            )
            output = (model or classifier)(objective.images, objective.part)
            yield objective, output, objective.loss(output)
            objective = generator.send(detached(output))
    except StopIteration:
        return


def _require_objectives(classifier: Classifier) -> None:
    if isinstance(classifier.head, FittedHead):
        raise NotApplicable("it is fitted to features instead of trained")


@torch.no_grad()
def labeled_features(classifier: Classifier, images: Tensor, labels: Tensor) -> LabeledFeatures:
    """Return what the head of a classifier reads of images B,3,S,S, in evaluation mode."""
    classifier.backbone.eval()
    return LabeledFeatures(classifier.backbone(images, classifier.head.reads()), labels)


def trainable(classifier: Classifier) -> list[str]:
    """Return the names of parameters that require a gradient, as "head.classifier.weight"."""
    return [name for name, parameter in classifier.named_parameters() if parameter.requires_grad]


def copied_state(model: nn.Module) -> dict[str, Tensor]:
    """Return copies of a model's parameters and buffers by name, including non-persistent buffers."""
    named = (*model.named_parameters(), *model.named_buffers())
    return {name: tensor.detach().clone() for name, tensor in named}


def saved_state(model: nn.Module) -> dict[str, Tensor]:
    """Return a copy of a model's state dict.

    Raises:
        ContractError: the state dict has entries that are not tensors.
    """
    state = model.state_dict()
    wrong = [name for name, value in state.items() if not isinstance(value, Tensor)]
    expect(
        not wrong,
        "only tensors in the state dict",
        f"{some(wrong)} {'is' if len(wrong) == 1 else 'are'} not",
        "keep numbers in buffers, and everything else in the options",
    )
    return {name: value.detach().clone() for name, value in state.items()}


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> list[str]:
    """Return the names of entries that are not equal bit for bit."""
    return [n for n in before if n not in after or not torch.equal(before[n].nan_to_num(), after[n].nan_to_num())]


def describe(found: object) -> str:
    """Describe a value where a tensor is expected."""
    return f"{found.dtype} of shape {tuple(found.shape)}" if isinstance(found, Tensor) else f"a {type(found).__name__}"
