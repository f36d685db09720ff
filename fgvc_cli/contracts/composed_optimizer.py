"""Optimizers built over another one: they decide where the gradient is taken, their base takes the step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from fgvc_cli.contracts.optimizer import Closure, Evaluation, Optimizer, ParameterGroup
from fgvc_cli.errors import FgvcError


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
        self.coasts = base.coasts

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
    def bad(self) -> Tensor:
        """As the host's closure says."""
        return self.closure.bad

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
