"""Multinomial logistic regression on features, with its regularization chosen on validation data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fgvc_cli.errors import FgvcError

GRID = tuple(10 ** (-k / 2) for k in range(2, 11))
"""Strengths of the L2 penalty to choose from, strongest first: 0.1 to 1e-5."""

DEFAULT_L2 = 0.003
"""Strength without validation data."""

WORSE = 2
"""Number of strengths in a row with a higher validation loss, after which weaker ones are not tried."""

TOLERANCE = 1e-5
"""The fit ends once no component of the gradient of the mean loss is larger."""

ITERATIONS = 500
"""Maximum number of L-BFGS iterations."""


DIVERGED = "the logistic regression has no finite loss: the embedding has values that are NaN or too large"


@dataclass(frozen=True)
class LinearFit:
    """A fitted linear layer, for features as they are (not standardized).

    Attributes:
        weight: K,D.
        bias: K.
        l2: strength of the penalty.
        val_loss: mean cross entropy on validation data for each strength that was tried; empty without validation data.
    """

    weight: Tensor
    bias: Tensor
    l2: float
    val_loss: dict[float, float]


def fit_linear(
    features: Tensor,
    labels: Tensor,
    classes: int,
    val_features: Tensor | None = None,
    val_labels: Tensor | None = None,
    l2: Sequence[float] = GRID,
) -> LinearFit:
    """Fit a linear layer to features by multinomial logistic regression.

    The features are standardized with the mean and standard deviation of the training images; weight and bias are given
    for the original ones. Of several strengths of the penalty, the one with the lowest validation loss is chosen.

    Args:
        features: N,D.
        labels: class indices N.
        classes: K; a class without images gets a bias far below the others.
        val_features, val_labels: held-out M,D and M; without them, `DEFAULT_L2` is used unless one strength is given.
        l2: strengths to choose from: the objective is the mean cross entropy plus l2 / 2 times the squared norm of the
            weight of the standardized features (scikit-learn's C is 1 / (N l2)).

    Raises:
        FgvcError: the loss is not finite: the features are not, or nearly exceed the range of their type.
    """
    dtype = torch.promote_types(features.dtype, torch.float32)
    mean, std = features.to(dtype).mean(dim=0), features.to(dtype).std(dim=0, correction=0)
    std = torch.where(std > 1e-6 * std.max(), std, torch.ones_like(std))
    x = (features.to(dtype) - mean) / std
    held_out = None if val_features is None or val_labels is None or not len(val_labels) else val_labels
    strengths = sorted(set(l2), reverse=True)
    if held_out is None and len(strengths) > 1:
        strengths = [DEFAULT_L2]
    best, losses, worse = None, {}, 0
    layer = x.new_zeros(classes, x.shape[1] + 1)
    for strength in strengths:
        layer = _minimize(x, labels, layer, strength)
        weight = layer[:, :-1] / std
        fitted = weight, layer[:, -1] - weight @ mean
        if held_out is None or val_features is None:
            return LinearFit(*fitted, strength, {})
        losses[strength] = float(F.cross_entropy(F.linear(val_features.to(dtype), *fitted), held_out))
        if losses[strength] == min(losses.values()):
            best, worse = (*fitted, strength), 0
        elif (worse := worse + 1) == WORSE:
            break
    if best is None:
        raise FgvcError(DIVERGED)
    return LinearFit(*best, losses)


def _minimize(x: Tensor, labels: Tensor, start: Tensor, l2: float) -> Tensor:
    """Return the layer K,D+1 (weights, then bias) that minimizes the penalized loss, by L-BFGS from a start."""
    layer = start.clone()
    targets = F.one_hot(labels, len(layer)).to(x.dtype)
    optimizer = torch.optim.LBFGS(
        [layer],
        max_iter=ITERATIONS,
        max_eval=2 * ITERATIONS,
        tolerance_grad=TOLERANCE,
        tolerance_change=0.0,
        history_size=10,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        weight, bias = layer[:, :-1], layer[:, -1]
        log_p = F.log_softmax(F.linear(x, weight, bias), dim=1)
        residual = (log_p.exp() - targets) / len(x)  # gradient with respect to the logits
        layer.grad = torch.cat([residual.T @ x + l2 * weight, residual.sum(dim=0)[:, None]], dim=1)
        value = -(log_p * targets).sum() / len(x) + 0.5 * l2 * weight.square().sum()
        if not math.isfinite(float(value)):
            raise FgvcError(DIVERGED)
        return value

    optimizer.step(loss)
    return layer
