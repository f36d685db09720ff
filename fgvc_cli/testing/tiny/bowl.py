"""A problem for optimizers: parameters of two parts, and a closure whose minimum is known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from fgvc_cli.contracts import Evaluation, Loss, ParameterGroup

SHAPES: dict[str, dict[str, tuple[int, ...]]] = {
    "backbone": {"convolution.weight": (4, 3, 3, 3), "norm.weight": (4,), "frozen": (3,)},
    "head": {"weight": (5, 4), "bias": (5,)},
}


class Bowl:
    """Parameters that lie off the bottom of a bowl; one of them is frozen, as those of pruned modules may be.

    Args:
        seed: of the parameters and of the bottom.
    """

    def __init__(self, seed: int = 0) -> None:
        drawn = torch.Generator().manual_seed(seed)
        self.parameters: dict[str, dict[str, nn.Parameter]] = {}
        self.bottom: dict[nn.Parameter, Tensor] = {}
        for part, shapes in SHAPES.items():
            self.parameters[part] = {}
            for name, shape in shapes.items():
                parameter = nn.Parameter(torch.randn(shape, generator=drawn) + 1.0, requires_grad=name != "frozen")
                self.parameters[part][name] = parameter
                self.bottom[parameter] = torch.randn(shape, generator=drawn)

    def groups(self) -> list[ParameterGroup]:
        """Return the parameters as the host hands them to an optimizer."""
        return [
            ParameterGroup("backbone", self.parameters["backbone"]),
            ParameterGroup("head", self.parameters["head"]),
        ]

    def named(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Give all parameters with their names, as "head.weight"."""
        for part, parameters in self.parameters.items():
            yield from ((f"{part}.{name}", parameter) for name, parameter in parameters.items())

    def values(self) -> dict[str, Tensor]:
        """Return copies of all parameters."""
        return {name: parameter.detach().clone() for name, parameter in self.named()}

    @torch.no_grad()
    def set(self, values: Mapping[str, Tensor]) -> None:
        """Put copies back."""
        for name, parameter in self.named():
            parameter.copy_(values[name])

    @torch.no_grad()
    def height(self) -> float:
        """Return how far above the bottom they lie."""
        return float(sum(((p - self.bottom[p]) ** 2).sum() for _, p in self.named() if p.requires_grad) / 2)


@dataclass
class BowlClosure:
    """Evaluates the height of a bowl and leaves its gradient in the parameters.

    Attributes:
        bowl: the problem.
        bad: scalar: 1.0 makes the gradients not a number.
        without: names of parameters that get no gradient.
        idle: names of parameters that get a gradient of zero, as those that coast do.
        calls: "update" or "ascent" for each evaluation so far.
        evaluations: what they returned.
    """

    bowl: Bowl
    bad: Tensor = field(default_factory=lambda: torch.zeros(()))
    without: tuple[str, ...] = ()
    idle: tuple[str, ...] = ()
    calls: list[str] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)

    def __call__(self) -> Evaluation:
        """Evaluate for the update."""
        return self._evaluate("update")

    def ascent(self) -> Evaluation:
        """Evaluate for a look around."""
        return self._evaluate("ascent")

    def _evaluate(self, call: str) -> Evaluation:
        self.calls.append(call)
        for name, parameter in self.bowl.named():
            parameter.grad = None
            if parameter.requires_grad and name not in self.without:
                gradient = parameter.detach() - self.bowl.bottom[parameter]
                gradient = torch.zeros_like(gradient) if name in self.idle else gradient
                parameter.grad = gradient.fill_(float("nan")) if float(self.bad) else gradient
        evaluation = Evaluation([len(self.calls)], [Loss(torch.tensor(self.bowl.height()))])
        self.evaluations.append(evaluation)
        return evaluation
