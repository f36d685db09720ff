"""The linear head."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from fgvc_cli import UsageError
from fgvc_cli.contracts import Reads
from fgvc_cli.options import build
from fgvc_heads.linear import LinearHead
from fgvc_heads.options import LinearOptions


@pytest.fixture
def head(cnn) -> LinearHead:
    torch.manual_seed(0)
    return LinearHead(backbone=cnn, classes=7, options=LinearOptions())


def test_reads_the_embedding_and_nothing_else(head):
    assert head.reads() == Reads(embedding=True)
    assert head.cam_map() is None


def test_scores_are_a_linear_map_of_the_embedding(head, cnn, features_of):
    features = features_of(cnn, 3)
    expected = features.embedding @ head.classifier.weight.T + head.classifier.bias
    torch.testing.assert_close(head(features), expected)


def test_starts_undecided(head, cnn, features_of):
    probabilities = head(features_of(cnn, 64)).softmax(1)
    assert (probabilities - 1 / 7).abs().max() < 0.03
    assert head.classifier.weight.std() > 0.005


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


def test_dropout_acts_in_training_alone(cnn, features_of):
    head, features = LinearHead(cnn, 7, LinearOptions(dropout=0.5)), features_of(cnn, 3)
    assert not torch.equal(head(features), head(features))
    head.eval()
    assert torch.equal(head(features), head(features))


def test_refuses_a_dropout_of_one():
    with pytest.raises(UsageError, match=r"head.dropout=1: must be at least 0.0 and at most 0.99"):
        build(LinearOptions, {"dropout": 1}, "head")
