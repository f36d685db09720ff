"""Scores of familiarity, and how well they find images of unknown classes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score, roc_curve
from torch.nn import functional as F

from fgvc_cli.scoring.calibration.novelty import ClassMeans, Detection, logit_scores


def test_detection_is_that_of_sklearn() -> None:
    rng = np.random.default_rng(0)
    known, unknown = np.round(rng.normal(1, 1, 300), 1), np.round(rng.normal(0, 1, 200), 1)  # with ties
    truth, scores = np.repeat([1, 0], [300, 200]), np.concatenate([known, unknown])
    found = Detection.of(known, unknown, 0.5)
    false_positives, recall, _ = roc_curve(truth, scores)
    assert found.auroc == pytest.approx(roc_auc_score(truth, scores))
    assert found.fpr95 == pytest.approx(false_positives[recall >= 0.95].min())
    assert found.rejected == pytest.approx((unknown < 0.5).mean()) and found.kept == pytest.approx(
        (known >= 0.5).mean()
    )


def test_scores_of_logits() -> None:
    logits = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    found = logit_scores(logits)
    assert torch.allclose(found["energy"], logits.exp().sum(1).log())
    assert torch.allclose(found["max_logit"], logits.max(1).values)
    assert torch.allclose(found["probability"], logits.softmax(1).max(1).values)


def test_class_means_are_those_of_centered_unit_vectors() -> None:
    generator = torch.Generator().manual_seed(0)
    features, labels = torch.randn(60, 8, generator=generator) + 5, torch.arange(60) % 3
    found = ClassMeans.of(features, labels, 3)
    unit = F.normalize(features - features.mean(0), dim=1)
    means = torch.stack([unit[labels == k].mean(0) for k in range(3)])
    new = torch.randn(4, 8, generator=generator)
    cosine = F.cosine_similarity((new - features.mean(0))[:, None], means[None], dim=2).max(1).values
    assert torch.allclose(found.score(new), cosine, atol=1e-5)
