"""SAM, sharpness-aware minimization: a step along the gradient at perturbed weights, taken by a base optimizer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fgvc_cli.contracts import Closure, ComposedOptimizer, Evaluation, Optimizer, ParameterGroup, SingleEvaluation
from fgvc_optimizers.options import SamOptions

TINY = 1e-12
"""Added to the gradient norm, which may be 0."""


class Sam(ComposedOptimizer):
    """Minimize the loss at the worst point nearby, which leads to flat minima (Foret et al. 2021, arXiv 2010.01412).

    From the weights w and their gradient g it ascends to w + e, e = rho * g / ||g||, with one norm over all
    parameters; the base optimizer updates w with the gradient found there. Adaptive (ASAM, Kwon et al. 2021, arXiv
    2102.11600): e = rho * w^2 * g / || |w| * g ||, which is large where weights are. Weight decay and clipping apply to
    the update, not to the ascent. The weights are restored from a copy, so they come back exactly.

    A step takes two evaluations. The number of kernel launches around them does not grow with the number of parameter
    tensors, and nothing synchronizes with the device: a non-finite gradient makes the second one non-finite too, and
    the base skips the update.

    Args:
        groups: parameters by part.
        options: see `SamOptions`.
        base: optimizer that updates the weights.
    """

    def __init__(self, groups: Sequence[ParameterGroup], options: SamOptions, base: Optimizer) -> None:
        super().__init__(groups, options, base)
        self.weights: list[Tensor] = [p for group in groups for p in group.parameters.values()]
        self.adaptive, self.rho = options.adaptive, options.radius
        self._copies: dict[Tensor, Tensor] = {}

    def step(self, closure: Closure) -> Evaluation:
        """Evaluate at the weights, ascend, and let the base update with the gradient found there."""
        first = closure.ascent()
        perturbed = [w for w in self.weights if w.grad is not None]
        descent = _Descent(closure, self.base, perturbed, self._copy(perturbed))
        try:
            self._ascend(perturbed)
            self.base.step(descent)
        finally:  # after a failure, too, the weights that are saved must be the unperturbed ones
            descent.restore()
        return first

    @torch.no_grad()
    def _copy(self, weights: list[Tensor]) -> list[Tensor]:
        """Copy the weights into buffers that are reused from step to step."""
        for weight in weights:
            if weight not in self._copies:
                self._copies[weight] = torch.empty_like(weight)
        copies = [self._copies[weight] for weight in weights]
        torch._foreach_copy_(copies, weights)
        return copies

    @torch.no_grad()
    def _ascend(self, weights: list[Tensor]) -> None:
        """Add e to the weights. The gradients are overwritten with e; the next evaluation computes new ones."""
        gradients = [w.grad for w in weights if w.grad is not None]
        if self.adaptive:
            torch._foreach_mul_(gradients, weights)
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        if self.adaptive:
            torch._foreach_mul_(gradients, weights)
        torch._foreach_mul_(gradients, self.rho / (norm + TINY))
        torch._foreach_add_(weights, gradients)


class _Descent(SingleEvaluation):
    """The evaluation at the perturbed weights; it restores the weights afterwards."""

    def __init__(self, closure: Closure, base: Optimizer, weights: list[Tensor], copies: list[Tensor]) -> None:
        super().__init__(closure, base)
        self.weights, self.copies, self.perturbed = weights, copies, True

    def evaluate(self) -> Evaluation:
        """Evaluate for the update, then restore the weights."""
        evaluation = super().evaluate()
        self.restore()
        return evaluation

    @torch.no_grad()
    def restore(self) -> None:
        """Restore the weights once: calling it again must not undo the base's update."""
        if self.perturbed:
            torch._foreach_copy_(self.weights, self.copies)
            self.perturbed = False
