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


@pytest.mark.parametrize("soft", [False, True], ids=["classes", "probabilities"])
@pytest.mark.parametrize("architecture", ["cnn", "transformer"])
def test_no_synchronization_and_no_loop_over_images(architecture, soft, request, features_of, strict_device):
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
