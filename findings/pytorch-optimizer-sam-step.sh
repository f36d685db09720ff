#!/usr/bin/env bash
# SAM of pytorch-optimizer, driven as every other PyTorch optimizer that takes a closure: `step(closure)`.
#
# A good guess: `step(closure)` evaluates the closure at the weights and at the perturbed weights, as SAM's two passes.
# What happens (pytorch-optimizer 4.1.0, torch 2.14.1, CPU): the closure runs once, at the perturbed weights. The
# perturbation comes from whatever gradients are there. After `zero_grad()` they are absent, nothing is perturbed, and
# the result is plain SGD to the last bit. Without `zero_grad()` the perturbation follows the gradient of the previous
# step. Only with a backward pass before `step(closure)` is it SAM, as with `first_step` and `second_step` by hand.
#
# Output seen:
#   zero_grad, step(closure)   equals SGD: True   equals SAM by hand: False   closure calls per step: 1
#   step(closure)              equals SGD: False  equals SAM by hand: False   closure calls per step: 1
#   backward, step(closure)    equals SGD: False  equals SAM by hand: True    closure calls per step: 1
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.14.1 pytorch-optimizer==4.1.0
"$work/venv/bin/python" - <<'PY'
import torch
from pytorch_optimizer import SAM

CURVATURE = torch.diag(torch.linspace(1, 20, 8))


def trained(how):
    torch.manual_seed(0)
    weights = torch.nn.Parameter(torch.randn(8))
    plain = how == "sgd"
    optimizer = torch.optim.SGD([weights], lr=0.01) if plain else SAM([weights], torch.optim.SGD, rho=0.5, lr=0.01)
    calls = 0

    def closure():
        nonlocal calls
        calls += 1
        optimizer.zero_grad()
        loss = 0.5 * weights @ CURVATURE @ weights + (weights**4).sum()
        loss.backward()
        return loss

    for _ in range(5):
        if how == "by hand":
            closure()
            optimizer.first_step(zero_grad=True)
            closure()
            optimizer.second_step(zero_grad=True)
            continue
        if how == "zero_grad, step(closure)":
            optimizer.zero_grad()
        if how == "backward, step(closure)":
            closure()
            calls -= 1
        optimizer.step(closure)
    return weights.detach(), calls / 5


sgd, _ = trained("sgd")
by_hand, _ = trained("by hand")
found = {}
for how in ("zero_grad, step(closure)", "step(closure)", "backward, step(closure)"):
    weights, calls = trained(how)
    found[how] = torch.equal(weights, sgd), torch.equal(weights, by_hand), calls
    print(f"{how:26} equals SGD: {found[how][0]!s:5}  equals SAM by hand: {found[how][1]!s:5}   "
          f"closure calls per step: {calls:g}")
expected = {
    "zero_grad, step(closure)": (True, False, 1),
    "step(closure)": (False, False, 1),
    "backward, step(closure)": (False, True, 1),
}
assert found == expected, "changed since this was written"
PY
