"""Class weights and logit adjustment: their formulas, for every head, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional as F

from fgvc_cli.config.train_options import TrainOptions
from fgvc_cli.contracts import cross_entropy
from fgvc_cli.contracts.targets import with_offset, with_teacher
from fgvc_cli.errors import UsageError
from fgvc_cli.training.class_balance import ClassBalance, class_balance, class_weights, log_prior

LABELS = np.repeat([0, 1, 2], [60, 30, 10])
SMALL = {
    "linear": {},
    "pim": {"fpn_size": 16, "num_selects": 2, "lambda_s": 0.5, "lambda_n": 0.0, "dropout": 0.0},
    "cmal": {"expert_width": 8, "map_channels": 8, "hidden_width": 8},
}


def test_weights_are_scikit_learns_and_have_mean_1_over_images():
    counts = torch.bincount(torch.from_numpy(LABELS)).double()
    balanced = compute_class_weight("balanced", classes=np.arange(3), y=LABELS)
    torch.testing.assert_close(class_weights(counts, 1.0), torch.from_numpy(balanced))
    weights = class_weights(counts, 0.5)
    assert float(weights[LABELS].mean()) == pytest.approx(1)
    assert float(weights[2] / weights[0]) == pytest.approx(6**0.5)
    assert torch.isfinite(class_weights(torch.tensor([5.0, 0.0]), 1.0)).all()
    assert torch.isfinite(log_prior(torch.tensor([5.0, 0.0]))).all()


@pytest.mark.parametrize("soft", [False, True])
def test_the_loss_is_the_papers(soft):
    torch.manual_seed(0)
    scores, labels = torch.randn(6, 3, dtype=torch.float64), torch.tensor([0, 1, 2, 2, 0, 1])
    one_hot = F.one_hot(labels, 3).double()
    targets = 0.9 * one_hot + 0.1 / 3 if soft else one_hot
    given = targets if soft else labels
    # Menon et al. 2021, equation 10: -log(pi_y^tau e^f_y / sum_k pi_k^tau e^f_k)
    prior = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)
    adjusted = prior**1.5 * scores.exp()
    log_probabilities = (adjusted / adjusted.sum(dim=1, keepdim=True)).log()
    found = ClassBalance(offset=1.5 * prior.log()).adjusted(given)
    torch.testing.assert_close(cross_entropy(scores, found), -(targets * log_probabilities).sum(dim=1).mean())
    weights = torch.tensor([0.5, 1.0, 4.0], dtype=torch.float64)
    weighted = cross_entropy(scores, ClassBalance(weights=weights).weighted(given), "sum")
    torch.testing.assert_close(weighted, -(targets * weights * scores.log_softmax(dim=1)).sum())


def test_a_teacher_is_imitated_without_the_offset():
    torch.manual_seed(0)
    scores, teacher, offset = torch.randn(4, 3), torch.randn(4, 3), torch.tensor([0.0, -1.0, -2.0])
    labels = F.one_hot(torch.tensor([0, 1, 2, 2]), 3).float()
    found = cross_entropy(scores, with_offset(with_teacher(labels, teacher, 0.25, 2.0), offset))
    imitation = 4 * F.cross_entropy(scores / 2, (teacher / 2).softmax(dim=1))
    torch.testing.assert_close(found, 0.75 * F.cross_entropy(scores + offset, labels) + 0.25 * imitation)


def losses_of(classifier, images, targets):
    """The losses of all objectives, without an update."""
    torch.manual_seed(1)
    found, generator = [], classifier.head.objectives(images, targets)
    output = None
    while True:
        try:
            objective = generator.send(output)
        except StopIteration:
            return found
        output = classifier(objective.images, objective.part)
        found.append(objective.loss(output))


@pytest.mark.parametrize("head", SMALL)
@pytest.mark.parametrize("setting", ["class_weights", "logit_adjustment"])
def test_it_reaches_every_loss_of_a_head(classifier_of, head, setting):
    classifier = classifier_of("timm/test_resnet", head, 64, 3, SMALL[head]).eval()
    batch = torch.randn(2, 3, 64, 64), torch.tensor([2, 2])  # both of the rarest class
    plain = losses_of(classifier, *batch)
    options = {"class_weights": "inverse"} if setting == "class_weights" else {"logit_adjustment": 1.0}
    balance = class_balance(TrainOptions(**options), classifier, head, LABELS)
    changed = losses_of(classifier, batch[0], balance.adjusted(balance.weighted(batch[1])))
    assert len(plain) == len(changed) == (5 if head == "cmal" else 1)
    for before, after in zip(plain, changed, strict=True):
        terms = [(before.value, after.value), *((before.parts[name], after.parts[name]) for name in before.parts)]
        for one, other in terms:
            if setting == "class_weights":  # 100 images / (3 classes * 10 images)
                torch.testing.assert_close(other, one * 10 / 3)
            else:
                assert other > one + 0.5


def test_what_is_refused(classifier_of, monkeypatch):
    classifier = classifier_of("timm/test_resnet", "linear", 64, 3)
    monkeypatch.setattr(type(classifier.head), "distills", False)
    with pytest.raises(UsageError, match=r"class_weights=sqrt.*strange"):
        class_balance(TrainOptions(class_weights="sqrt"), classifier, "strange", LABELS)
    assert class_balance(TrainOptions(), classifier, "strange", LABELS) == ClassBalance()
    with pytest.raises(ValueError, match=r"class_weights=inverse and sampling=class"):
        TrainOptions(class_weights="inverse", sampling="class")
