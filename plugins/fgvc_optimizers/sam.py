"""SAM, sharpness-aware minimization: the gradient is taken uphill of the weights, a base takes the step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fgvc_cli.contracts import Closure, ComposedOptimizer, Evaluation, Optimizer, ParameterGroup, SingleEvaluation
from fgvc_optimizers.options import SamOptions

TINY = 1e-12
"""Added to the norm of the gradient, which may be 0."""


class Sam(ComposedOptimizer):
    """Minimizes the loss at the worst point nearby, which leads to flat minima (Foret et al. 2021, arXiv 2010.01412).

    From the weights w and their gradient g it climbs to w + e, e = rho * g / ||g||, with one norm over all
    parameters; the gradient there moves w by the base's rule. Adaptive (ASAM, Kwon et al. 2021, arXiv 2102.11600): e
    = rho * w^2 * g / || |w| * g ||, which is large where weights are. Weight decay and clipping belong to the step
    and have no part in the climb. Weights come back exactly: they are kept, not computed back.

    Two evaluations a step. The launches around them do not grow with the number of parameter tensors, and nothing
    waits for the device: a gradient that is not finite makes the second one so too, and the base moves nothing.

    Args:
        groups: parameters by part.
        options: see `SamOptions`.
        base: takes the steps.
    """

    def __init__(self, groups: Sequence[ParameterGroup], options: SamOptions, base: Optimizer) -> None:
        super().__init__(groups, options, base)
        self.weights: list[Tensor] = [p for group in groups for p in group.parameters.values()]
        self.adaptive, self.rho = options.adaptive, options.radius
        self._copies: dict[Tensor, Tensor] = {}

    def step(self, closure: Closure) -> Evaluation:
        """Evaluate at the weights, climb, and let the base step by the gradient found there."""
        first = closure.ascent()
        climbing = [w for w in self.weights if w.grad is not None]
        descent = _Descent(closure, self.base, climbing, self._keep(climbing))
        try:
            self._climb(climbing)
            self.base.step(descent)
        finally:  # whatever failed: what is saved then must be the weights
            descent.come_back()
        return first

    @torch.no_grad()
    def _keep(self, weights: list[Tensor]) -> list[Tensor]:
        """Copy the weights to where the last step's copies were."""
        for weight in weights:
            if weight not in self._copies:
                self._copies[weight] = torch.empty_like(weight)
        copies = [self._copies[weight] for weight in weights]
        torch._foreach_copy_(copies, weights)
        return copies

    @torch.no_grad()
    def _climb(self, weights: list[Tensor]) -> None:
        """Add e to the weights; the gradients become e on the way, and the next evaluation makes new ones."""
        gradients = [w.grad for w in weights if w.grad is not None]
        if self.adaptive:
            torch._foreach_mul_(gradients, weights)
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        if self.adaptive:
            torch._foreach_mul_(gradients, weights)
        torch._foreach_mul_(gradients, self.rho / (norm + TINY))
        torch._foreach_add_(weights, gradients)


class _Descent(SingleEvaluation):
    """The evaluation uphill; after it the weights are again where the climb began."""

    def __init__(self, closure: Closure, base: Optimizer, weights: list[Tensor], kept: list[Tensor]) -> None:
        super().__init__(closure, base)
        self.weights, self.kept, self.uphill = weights, kept, True

    def evaluate(self) -> Evaluation:
        """Evaluate for the update, and come back."""
        evaluation = super().evaluate()
        self.come_back()
        return evaluation

    @torch.no_grad()
    def come_back(self) -> None:
        """Put back the weights that were kept, unless that is done: the base's step is not undone."""
        if self.uphill:
            torch._foreach_copy_(self.weights, self.kept)
            self.uphill = False
