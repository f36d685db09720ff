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
    """Result of evaluating an objective: the head's outputs and the losses, one per micro-batch."""

    outputs: list[Any]
    losses: list[Loss]


class Closure(Protocol):
    """Evaluates the objective at the current weights and stores its gradient in the parameters."""

    @property
    def found_inf(self) -> Tensor:
        """Scalar on the device: 1.0 if the loss or gradient of the last evaluation was not finite, else 0.0."""

    def __call__(self) -> Evaluation:
        """Evaluate for the update: the gradient is reduced over processes and clipped if enabled."""

    def ascent(self) -> Evaluation:
        """Evaluate for an ascent step: the gradient is this process's own and is not clipped."""


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters of the backbone or the head, by name.

    With `train.layer_decay` there is one group for each layer of the backbone, shallow first.

    Attributes:
        part: where the parameters are.
        parameters: by their name in that part.
        lr_scale: factor of the learning rate of the part.
    """

    part: Literal["backbone", "head"]
    parameters: Mapping[str, nn.Parameter]
    lr_scale: float = 1.0


class Optimizer(ABC):
    """Updates parameters to minimize objectives.

    The host calls the component's target as `target(groups=..., options=...)`. The options have at least `lr` and
    `head_lr`, the learning rates of the backbone and of the head. For an optimizer whose spec has a `base`, see
    `ComposedOptimizer`.

    Attributes:
        moves_without_grad: whether parameters without a gradient get a zero gradient in objectives with
            `missing_grad="zero"`, so that momentum and weight decay apply; if not, they are skipped.
        scales_rates: whether learning rates are multiplied by `ParameterGroup.lr_scale`; if not, `train.layer_decay` is
            refused.
        linear_scaling: whether the linear scaling rule of Goyal et al. 2017 (`train.lr_scaling`) holds; it is derived
            for SGD, and not for optimizers that normalize the gradient.
    """

    moves_without_grad: bool = True
    scales_rates: bool = False
    linear_scaling: bool = False

    @abstractmethod
    def __init__(self, groups: Sequence[ParameterGroup], options: Any) -> None: ...

    @abstractmethod
    def step(self, closure: Closure) -> Evaluation:
        """Minimize one objective and return its first evaluation; if `closure.found_inf` is 1.0, change nothing."""

    @abstractmethod
    def set_rate(self, factor: float) -> None:
        """Set each learning rate to `factor` times its option.

        The factor is that of the schedule, 0 to 1, times that of `train.lr_scaling` if `linear_scaling`.
        """

    @abstractmethod
    def rates(self) -> dict[str, float]:
        """Return the current learning rate of each part, for the log."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Return the state as nested dicts and lists of tensors, numbers, strings and booleans."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""


class TorchOptimizer(Optimizer):
    """Wraps an optimizer with the interface of `torch.optim`; one closure call per step.

    A plugin creates the optimizer in `make`. Fused optimizers skip an update with a non-finite gradient on the device;
    for others the host synchronizes with the device in each step.

    Args:
        groups: parameters by part.
        options: has `lr` and `head_lr` (None: same as `lr`), and optionally `decay_norms`: if false, biases and norm
            parameters (those with one dimension) get no weight decay.
    """

    optimizer: torch.optim.Optimizer
    scales_rates = True

    def __init__(self, groups: Sequence[ParameterGroup], options: Any) -> None:
        head_lr = options.lr if options.head_lr is None else options.head_lr
        self._rates = {"backbone": float(options.lr), "head": float(head_lr)}
        torch_groups = [
            {**split, "lr": self._rates[group.part] * group.lr_scale, "part": group.part, "lr_scale": group.lr_scale}
            for group in groups
            for split in _by_decay(group, getattr(options, "decay_norms", True))
        ]
        self.optimizer = self.make(torch_groups, options)
        self._gates_itself = bool(getattr(self.optimizer, "_step_supports_amp_scaling", False))

    @abstractmethod
    def make(self, groups: list[dict[str, Any]], options: Any) -> torch.optim.Optimizer:
        """Return the optimizer for parameter groups, each with `params`, `lr`, `part` and `lr_scale`."""

    def step(self, closure: Closure) -> Evaluation:
        """Evaluate once and update."""
        evaluation = closure()
        self.update(closure.found_inf)
        return evaluation

    def update(self, found_inf: Tensor) -> None:
        """Apply the gradients unless `found_inf` (a scalar on the device) is 1.0."""
        if self._gates_itself:
            self.optimizer.found_inf = found_inf  # type: ignore[attr-defined]
            self.optimizer.step()
        elif not found_inf.item():
            self.optimizer.step()

    def set_rate(self, factor: float) -> None:
        """Set each learning rate to `factor` times its option, times the scale of the layer."""
        for group in self.optimizer.param_groups:
            group["lr"] = factor * self._rates[group["part"]] * group.get("lr_scale", 1.0)

    def rates(self) -> dict[str, float]:
        """Return the current learning rate of each part, of its deepest layer."""
        return {group["part"]: float(group["lr"]) for group in self.optimizer.param_groups}

    def state_dict(self) -> dict[str, Any]:
        """Return the state dict of the torch optimizer."""
        return self.optimizer.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load a state dict of the torch optimizer, each tensor in the memory format of its parameter.

        Fused kernels iterate over both in memory order: a contiguous momentum (as stored in files) with a channels-last
        weight would silently update the wrong entries.
        """
        self.optimizer.load_state_dict(dict(state))
        for parameter, entries in self.optimizer.state.items():
            for name, value in entries.items():
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    entries[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _by_decay(group: ParameterGroup, decay_norms: bool) -> list[dict[str, Any]]:
    """Split the parameters of a part into torch parameter groups with and without weight decay."""
    parameters = list(group.parameters.values())
    decaying = [p for p in parameters if decay_norms or p.ndim > 1]
    still = [p for p in parameters if not decay_norms and p.ndim <= 1]
    splits: list[dict[str, Any]] = [{"params": decaying}, {"params": still, "weight_decay": 0.0}]
    return [split for split in splits if split["params"]]


class ComposedOptimizer(Optimizer):
    """An optimizer that wraps a base optimizer, as SAM wraps SGD.

    The host calls the component's target as `target(groups=..., options=..., base=...)`, with the base optimizer that
    the user chose, created for the same groups. Learning rates and state are the base's; the options need no `lr`.

    Args:
        groups: parameters by part.
        options: options of the wrapper.
        base: updates the parameters; evaluates its objective once per step.
    """

    def __init__(self, groups: Sequence[ParameterGroup], options: Any, base: Optimizer) -> None:
        self.groups, self.options, self.base = groups, options, base
        self.moves_without_grad, self.scales_rates = base.moves_without_grad, base.scales_rates
        self.linear_scaling = base.linear_scaling

    def set_rate(self, factor: float) -> None:
        """Set the learning rates of the base."""
        self.base.set_rate(factor)

    def rates(self) -> dict[str, float]:
        """Return the learning rates of the base."""
        return self.base.rates()

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the base; the wrapper keeps none between steps."""
        return self.base.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state of the base."""
        self.base.load_state_dict(state)


class SingleEvaluation:
    """A closure for a base optimizer: it may be evaluated once.

    Override `evaluate` to do something before or after that evaluation.

    Args:
        closure: the host's closure.
        base: the base optimizer, for the error message.
    """

    def __init__(self, closure: Closure, base: Optimizer) -> None:
        self.closure, self.base, self.done = closure, base, False

    @property
    def found_inf(self) -> Tensor:
        """The value of the host's closure."""
        return self.closure.found_inf

    def evaluate(self) -> Evaluation:
        """Evaluate for the update."""
        return self.closure()

    def __call__(self) -> Evaluation:
        """Evaluate for the update.

        Raises:
            FgvcError: it has been evaluated before.
        """
        if self.done:
            raise self._refused()
        self.done = True
        return self.evaluate()

    def ascent(self) -> Evaluation:
        """Raise `FgvcError`: an ascent step needs a second evaluation."""
        raise self._refused()

    def _refused(self) -> FgvcError:
        return FgvcError(
            f"{type(self.base).__name__} evaluates its objective more than once per step and cannot be a base "
            "optimizer; choose one that evaluates once, such as `optimizer.base=sgd`"
        )
