"""The linear head."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from fgvc_heads.linear import LinearHead
from fgvc_heads.options import LinearOptions


@pytest.fixture
def head(cnn) -> LinearHead:
    torch.manual_seed(0)
    return LinearHead(backbone=cnn, classes=7, options=LinearOptions())


def test_scores_are_a_linear_map_of_the_embedding(head, cnn, features_of):
    features = features_of(cnn, 3)
    expected = features.embedding @ head.classifier.weight.T + head.classifier.bias
    torch.testing.assert_close(head(features), expected)


def test_the_only_objective_is_cross_entropy(head, cnn, features_of):
    images, targets = torch.zeros(3, 3, 36, 36), torch.tensor([6, 0, 2])
    (objective,) = head.objectives(images, targets)
    scores = head(features_of(cnn, 3))
    loss = objective.loss(scores)
    assert objective.images is images and objective.part is None and objective.missing_grad == "skip"
    torch.testing.assert_close(loss.value, -scores.log_softmax(1)[torch.arange(3), targets].mean())
    assert loss.scores is scores

    (soft,) = head.objectives(images, F.one_hot(targets, 7).float())
    torch.testing.assert_close(soft.loss(scores).value, loss.value)
    assert soft.loss(scores.bfloat16()).value.dtype == torch.float32
    torch.testing.assert_close(
        objective.loss(scores.double()).value, F.cross_entropy(scores.double(), targets), rtol=1e-15, atol=0
    )
