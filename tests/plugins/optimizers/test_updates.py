"""What one step of `sgd` and `adamw` does to weights and state."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn


def snapshot(optimizer, parameters):
    """Weights and the optimizer's state, copied."""
    return copy.deepcopy(([p.detach() for p in parameters.values()], optimizer.state_dict()["state"]))


def assert_same(one, other):
    torch.testing.assert_close(one, other, rtol=0, atol=0)


def clones(parameters):
    return {name: nn.Parameter(p.detach().clone()) for name, p in parameters.items()}


def plain_sgd(weights, gradients, *, lr, momentum, decay, nesterov):
    """The update rule, written out."""
    velocity = torch.zeros_like(weights)
    for gradient in gradients:
        decayed = gradient + decay * weights
        velocity = momentum * velocity + decayed
        weights = weights - lr * (decayed + momentum * velocity if nesterov else velocity)
    return weights


def plain_adamw(weights, gradients, *, lr, decay):
    """The update rule, written out."""
    mean, square = torch.zeros_like(weights), torch.zeros_like(weights)
    for step, gradient in enumerate(gradients, start=1):
        mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
        weights = weights - lr * decay * weights
        weights = weights - lr * (mean / (1 - 0.9**step)) / ((square / (1 - 0.999**step)).sqrt() + 1e-8)
    return weights


@pytest.mark.parametrize(
    ("kind", "options"), [("sgd", {"nesterov": True}), ("sgd", {"nesterov": False}), ("adamw", {})]
)
def test_the_rule(kind, make, given, parameters, options):
    before = clones(parameters)
    optimizer = make(parameters, lr=0.01, head_lr=0.1, weight_decay=0.03, decay_norms=True, **options)
    gradients = []
    for seed in range(4):
        optimizer.step(given(parameters, seed))
        gradients.append({name: p.grad.clone() for name, p in parameters.items()})
    for name, parameter in parameters.items():
        lr, mine = 0.1 if name.startswith("classifier") else 0.01, [g[name] for g in gradients]
        if kind == "sgd":
            expected = plain_sgd(before[name], mine, lr=lr, momentum=0.9, decay=0.03, **options)
        else:
            expected = plain_adamw(before[name], mine, lr=lr, decay=0.03)
        torch.testing.assert_close(parameter.data, expected.data, rtol=1e-5, atol=1e-6)


@pytest.fixture
def unfilled_is_nan():
    """Memory that torch sets aside unfilled is NaN, instead of zeros by luck."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("unfilled_is_nan")
def test_a_skipped_first_update_leaves_no_trace(make, given, parameters):
    """Torch sets its first momentum aside unfilled; an update called off must not leave that noise behind."""
    untouched = clones(parameters)
    optimizer, fresh = make(parameters), make(untouched)
    optimizer.step(given(parameters, found_inf=torch.ones(())))
    assert_same([p.detach() for p in parameters.values()], [p.detach() for p in untouched.values()])
    for seed in range(2):
        optimizer.step(given(parameters, seed))
        fresh.step(given(untouched, seed))
    assert_same(snapshot(optimizer, parameters), snapshot(fresh, untouched))


@pytest.mark.parametrize("decay_norms", [False, True])
def test_decay_norms(make, given, parameters, decay_norms):
    plain = clones(parameters)
    optimizer = make(parameters, lr=0.1, weight_decay=0.5, decay_norms=decay_norms)
    without = make(plain, lr=0.1, weight_decay=0.0)
    optimizer.step(given(parameters))
    without.step(given(plain))
    moved = {name: not torch.equal(parameters[name], plain[name]) for name in parameters}
    assert moved == {
        "conv.weight": True,
        "norm.weight": decay_norms,
        "classifier.weight": True,
        "classifier.bias": decay_norms,
    }
