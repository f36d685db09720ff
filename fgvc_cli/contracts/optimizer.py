"""The optimizer contract: `step(closure)` minimizes one objective."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from fgvc_cli.contracts.head import Loss
from fgvc_cli.errors import FgvcError


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of an objective: the head's outputs and losses, one a micro-batch."""

    outputs: list[Any]
    losses: list[Loss]


class Closure(Protocol):
    """Evaluates the objective at the present weights and leaves its gradient in the parameters."""

    @property
    def found_inf(self) -> Tensor:
        """Scalar on the device: 1.0 if the last evaluation's loss or gradient was not finite, else 0.0."""

    def __call__(self) -> Evaluation:
        """Evaluate for the update: reduced over workers, clipped if clipping is on."""

    def ascent(self) -> Evaluation:
        """Evaluate for a look around: this worker's own gradient, not clipped."""


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters of one part of the classifier, by name."""

    part: Literal["backbone", "head"]
    parameters: Mapping[str, nn.Parameter]


class Optimizer(ABC):
    """Moves the parameters so as to minimize objectives.

    The host calls the component's target as `target(groups=..., options=...)`. Its options have at least `lr` and
    `head_lr` (learning rates of the backbone and of the head). One whose spec has a `base` is made differently: see
    `ComposedOptimizer`.

    Attributes:
        coasts: whether a parameter that an objective lets coast is moved (by momentum and weight decay, given a zero
            gradient); if not, it is skipped like any parameter without a gradient.
    """

    moves_without_grad: bool = True

    @abstractmethod
    def __init__(self, groups: Sequence[ParameterGroup], options: Any) -> None: ...

    @abstractmethod
    def step(self, closure: Closure) -> Evaluation:
        """Minimize one objective and return its first evaluation. Where `closure.found_inf` is 1.0, move nothing."""

    @abstractmethod
    def set_rate(self, factor: float) -> None:
        """Set each learning rate to `factor` (the schedule's, 0 to 1) times its option."""

    @abstractmethod
    def rates(self) -> dict[str, float]:
        """Return the present learning rate by part, for the log."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Return the state as nested dicts and lists of tensors, numbers, strings and booleans."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state that `state_dict` returned."""


class TorchOptimizer(Optimizer):
    """An optimizer of `torch.optim` (or one built like them), one closure call a step.

    Its fused kernels skip the update on the device where the gradient is not finite; an optimizer without them is
    asked, at the price of waiting for the device each step.

    A plugin says in `make` which optimizer it is; torch's parameter groups carry the `part` they are of.

    Args:
        groups: parameters by part.
        options: has `lr` and `head_lr` (None: the same), and may have `decay_norms`: if that is false, biases and
            norm parameters (all that have one dimension) get a weight decay of 0.
    """

    optimizer: torch.optim.Optimizer

    def __init__(self, groups: Sequence[ParameterGroup], options: Any) -> None:
        head_lr = options.lr if options.head_lr is None else options.head_lr
        self._rates = {"backbone": float(options.lr), "head": float(head_lr)}
        torch_groups = [
            {**split, "lr": self._rates[group.part], "part": group.part}
            for group in groups
            for split in _by_decay(group, getattr(options, "decay_norms", True))
        ]
        self.optimizer = self.make(torch_groups, options)
        self._gates_itself = bool(getattr(self.optimizer, "_step_supports_amp_scaling", False))

    @abstractmethod
    def make(self, groups: list[dict[str, Any]], options: Any) -> torch.optim.Optimizer:
        """Make the optimizer from parameter groups, each with its `lr`."""

    def step(self, closure: Closure) -> Evaluation:
        """Evaluate once and update."""
        evaluation = closure()
        self.update(closure.found_inf)
        return evaluation

    def update(self, found_inf: Tensor) -> None:
        """Apply the gradients that are in the parameters, unless `bad` (a scalar on the device) is 1.0."""
        if self._gates_itself:
            self.optimizer.found_inf = found_inf  # type: ignore[attr-defined]
            self.optimizer.step()
        elif not found_inf.item():
            self.optimizer.step()

    def set_rate(self, factor: float) -> None:
        """Set the learning rate of each part to `factor` times its option."""
        for group in self.optimizer.param_groups:
            group["lr"] = factor * self._rates[group["part"]]

    def rates(self) -> dict[str, float]:
        """Return the present learning rates by part."""
        return {group["part"]: float(group["lr"]) for group in self.optimizer.param_groups}

    def state_dict(self) -> dict[str, Any]:
        """Return torch's own state dict."""
        return self.optimizer.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load torch's own state dict, each tensor into the memory format of its parameter.

        Fused kernels walk through both as they lie in memory: a contiguous momentum (as files keep them) beside a
        channels-last weight would be applied to the wrong entries, without an error.
        """
        self.optimizer.load_state_dict(dict(state))
        for parameter, entries in self.optimizer.state.items():
            for name, value in entries.items():
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    entries[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _by_decay(group: ParameterGroup, decay_norms: bool) -> list[dict[str, Any]]:
    """Split a part's parameters, as torch takes them, into those that decay and those that do not."""
    parameters = list(group.parameters.values())
    decaying = [p for p in parameters if decay_norms or p.ndim > 1]
    still = [p for p in parameters if not decay_norms and p.ndim <= 1]
    splits: list[dict[str, Any]] = [{"params": decaying}, {"params": still, "weight_decay": 0.0}]
    return [split for split in splits if split["params"]]


class ComposedOptimizer(Optimizer):
    """An optimizer whose steps another one takes, as SAM's are taken by SGD.

    The host calls the component's target as `target(groups=..., options=..., base=...)`, with the optimizer that a
    person chose, made of the same groups. Rates and state are the base's; its options need no `lr`.

    Args:
        groups: parameters by part.
        options: its own options.
        base: takes the steps; evaluates its objective once a step.
    """

    def __init__(self, groups: Sequence[ParameterGroup], options: Any, base: Optimizer) -> None:
        self.groups, self.options, self.base = groups, options, base
        self.moves_without_grad = base.moves_without_grad

    def set_rate(self, factor: float) -> None:
        """Set the base's rates."""
        self.base.set_rate(factor)

    def rates(self) -> dict[str, float]:
        """Return the base's rates."""
        return self.base.rates()

    def state_dict(self) -> dict[str, Any]:
        """Return the base's state: nothing else outlives a step."""
        return self.base.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load the base's state."""
        self.base.load_state_dict(state)


class SingleEvaluation:
    """A closure as a base gets it: the one evaluation left to it, and an error at any other.

    A plugin that does something before or after that evaluation overrides `evaluate`.

    Args:
        closure: the host's.
        base: whose step it is, for the message.
    """

    def __init__(self, closure: Closure, base: Optimizer) -> None:
        self.closure, self.base, self.done = closure, base, False

    @property
    def found_inf(self) -> Tensor:
        """As the host's closure says."""
        return self.closure.found_inf

    def evaluate(self) -> Evaluation:
        """Evaluate for the update."""
        return self.closure()

    def __call__(self) -> Evaluation:
        """Evaluate for the update, the first time.

        Raises:
            FgvcError: it was evaluated before.
        """
        if self.done:
            raise self._refused()
        self.done = True
        return self.evaluate()

    def ascent(self) -> Evaluation:
        """Refuse: a base that looks around evaluates more than once."""
        raise self._refused()

    def _refused(self) -> FgvcError:
        return FgvcError(
            f"optimizer.base: {type(self.base).__name__} evaluates its objective more than once a step, and what is "
            "built over it has one evaluation to give. Choose a base that takes one, such as sgd."
        )
