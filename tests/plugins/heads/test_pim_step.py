"""A training step of PIM never waits for the device, and takes as many operations for 8 images as for 2."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
import torch.nn.functional as F

from fgvc_heads.options import PimOptions
from fgvc_heads.pim import PimHead

OPTIONS = PimOptions(fpn_size=16, num_selects=4, joints_divisor=4, lambda_s=0.5)


def training_step(head, features, targets, strict_device) -> Counter[str]:
    """Forward, loss and backward under the strict device; returns the operations issued."""
    head.zero_grad()
    with strict_device() as device:
        (objective,) = head.objectives(torch.zeros(0), targets)
        objective.loss(head(features)).value.backward()
    return device.operations


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x.sum().item(),
        lambda x: bool(x.any()),
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        lambda x: x.tolist()[0] if x.dim() == 0 else x[0].item(),
    ],
)
def test_the_strict_device_notices(read, strict_device):
    with pytest.raises(AssertionError, match="waits for the device"), strict_device():
        read(torch.ones(3))


@pytest.mark.parametrize("soft", [False, True], ids=["classes", "probabilities"])
@pytest.mark.parametrize("architecture", ["cnn", "transformer", "vit"])
def test_no_waiting_and_no_loop_over_images(architecture, soft, request, features_of, strict_device):
    info = request.getfixturevalue(architecture)
    head = PimHead(info, 5, OPTIONS)
    operations = {}
    for images in (2, 8):
        targets = torch.arange(images) % 5
        targets = F.one_hot(targets, 5).float() if soft else targets
        operations[images] = training_step(head, features_of(info, images), targets, strict_device)
    assert any("backward" in name for name in operations[2])  # the backward pass was watched too
    assert operations[2] == operations[8]


def loss_function(head, targets):
    """The forward pass and the loss as one function of the features."""
    (objective,) = head.objectives(torch.zeros(0), targets)
    return lambda features: objective.loss(head(features)).value


def test_is_one_graph(transformer, features_of):
    """The slow test below compiles it; that nothing breaks the graph shows sooner."""
    head = PimHead(transformer, 5, OPTIONS)
    loss, features = loss_function(head, torch.tensor([0, 1])), features_of(transformer, 2)
    captured = torch.compile(loss, fullgraph=True, backend="eager")
    assert captured(features).isfinite()


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["cnn", "transformer"])
def test_compiles_to_one_graph(architecture, request, features_of):
    info = request.getfixturevalue(architecture)
    head, features = PimHead(info, 5, PimOptions(fpn_size=16, num_selects=4, dropout=0.0)), features_of(info, 4)
    eager = loss_function(head, torch.tensor([0, 1, 2, 3]))
    compiled = torch.compile(eager, fullgraph=True)
    gradients = []
    for function in (eager, compiled):
        head.zero_grad()
        value = function(features)
        value.backward()
        gradients.append([value.detach(), *(p.grad for p in head.parameters())])
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-5)


def test_learns(cnn, features_of):
    """With the optimizer and rate a person would start from, 40 steps fit 8 images of 4 classes."""
    torch.manual_seed(0)
    head = PimHead(cnn, 4, PimOptions(fpn_size=32, num_selects=8, joints_divisor=8))
    features, targets = features_of(cnn, 8), torch.arange(8) % 4
    fixed = features._replace(maps={index: m.detach() for index, m in features.maps.items()})
    loss = loss_function(head, targets)
    optimizer = torch.optim.SGD(head.parameters(), lr=0.03, momentum=0.9, nesterov=True)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        value = loss(fixed)
        value.backward()
        optimizer.step()
        losses.append(value.item())
    assert losses[-1] < losses[0] / 2
    assert torch.equal(head(fixed).scores.argmax(1), targets)
