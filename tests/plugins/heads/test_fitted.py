"""Heads fitted to features, compared with scikit-learn and with their formulas."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from fgvc_cli.contracts import BackboneInfo, Features, LabeledFeatures
from fgvc_cli.contracts.regression import fit_linear
from fgvc_cli.errors import UsageError
from fgvc_heads.knn import SMOOTHING, KnnHead
from fgvc_heads.options import KnnOptions, ProbeOptions, PrototypesOptions
from fgvc_heads.probe import ProbeHead
from fgvc_heads.prototypes import PrototypesHead

CLASSES, WIDTH = 4, 12
INFO = BackboneInfo("tiny", "convolutional", 32, (), WIDTH, (0.5,) * 3, (0.5,) * 3)


def clusters(images: int, seed: int, classes: int = CLASSES, dtype: torch.dtype = torch.float32) -> LabeledFeatures:
    """Overlapping classes, of unequal scale by column, and one column that is constant."""
    generator = torch.Generator().manual_seed(seed)
    centers = torch.randn(8, WIDTH, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(images) % classes
    embedding = centers[labels] + 1.5 * torch.randn(images, WIDTH, generator=generator)
    embedding = embedding * torch.logspace(-1, 1, WIDTH) + 3
    embedding[:, 5] = 7.0
    return LabeledFeatures(Features({}, embedding.to(dtype)), labels)


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.mark.parametrize("l2", [0.1, 0.003])
def test_regression_is_that_of_scikit_learn(l2: float) -> None:
    train, test = clusters(200, 2, dtype=torch.float64), clusters(40, 3, dtype=torch.float64)
    found = fit_linear(train.features.embedding, train.labels, CLASSES, l2=[l2])
    scaler = StandardScaler().fit(train.features.embedding)
    reference = LogisticRegression(C=1 / (200 * l2), tol=1e-8, max_iter=5000)
    reference.fit(scaler.transform(train.features.embedding), train.labels)
    expected = reference.predict_log_proba(scaler.transform(test.features.embedding))
    scores = test.features.embedding @ found.weight.T + found.bias
    np.testing.assert_allclose(scores.log_softmax(dim=1), expected, atol=2e-3)


def test_the_strength_with_the_lowest_validation_loss_is_chosen() -> None:
    train, val = clusters(60, 2), clusters(200, 4)
    found = fit_linear(train.features.embedding, train.labels, CLASSES, val.features.embedding, val.labels)
    losses = {}
    for l2 in found.val_loss:
        alone = fit_linear(train.features.embedding, train.labels, CLASSES, l2=[l2])
        scores = val.features.embedding @ alone.weight.T + alone.bias
        losses[l2] = float(torch.nn.functional.cross_entropy(scores, val.labels))
    assert found.l2 == min(losses, key=lambda l2: losses[l2]) and len(losses) > 3
    assert found.val_loss == pytest.approx(losses, abs=1e-3)
    head = ProbeHead(INFO, CLASSES, ProbeOptions())
    (line,) = head.fit(train, val)
    assert f"{found.l2:.3g}" in line
    torch.testing.assert_close(head.classifier.weight.detach(), found.weight)


@pytest.mark.parametrize("center", [True, False])
def test_prototypes_are_nearest_class_means(center: bool) -> None:
    train, test = clusters(80, 2), clusters(20, 3)
    head = PrototypesHead(INFO, CLASSES, PrototypesOptions(center=center, temperature=0.5))
    head.fit(train, None)
    x, y = train.features.embedding.numpy(), train.labels.numpy()
    mean = x.mean(axis=0) if center else 0
    prototypes = unit(np.stack([unit(x - mean)[y == c].mean(axis=0) for c in range(CLASSES)]))
    expected = unit(test.features.embedding.numpy() - mean) @ prototypes.T / 0.5
    np.testing.assert_allclose(head(test.features), expected, atol=1e-5)


@pytest.mark.parametrize(("k", "center"), [(1, False), (7, True)])
def test_knn_is_the_weighted_vote_of_the_nearest(k: int, center: bool) -> None:
    train, test = clusters(80, 2), clusters(20, 3)
    head = KnnHead(INFO, CLASSES, KnnOptions(k=k, center=center, temperature=0.1))
    head.fit(train, None)
    x, y = train.features.embedding.numpy(), train.labels.numpy()
    mean = x.mean(axis=0) if center else 0
    for query, scores in zip(test.features.embedding.numpy(), head(test.features), strict=True):
        similarity = (unit(x - mean) @ unit((query - mean)[None]).T)[:, 0]
        nearest = np.argsort(-similarity)[:k]
        votes = np.bincount(y[nearest], weights=np.exp(similarity[nearest] / 0.1), minlength=CLASSES)
        expected = (1 - SMOOTHING) * votes / votes.sum() + SMOOTHING / CLASSES
        np.testing.assert_allclose(scores.softmax(dim=0), expected, atol=1e-5)


def test_knn_needs_k_images() -> None:
    with pytest.raises(UsageError, match=r"31.*30"):
        KnnHead(INFO, CLASSES, KnnOptions(k=31)).fit(clusters(30, 0), None)


@pytest.mark.parametrize("make", [
    lambda classes: PrototypesHead(INFO, classes, PrototypesOptions(center=False, temperature=0.1)),
    lambda classes: KnnHead(INFO, classes, KnnOptions(k=5, center=False)),
])  # fmt: skip
def test_classes_added_later_score_as_if_fitted_together(make: Any) -> None:
    everything = clusters(90, 2, classes=6)
    old, new = everything.labels < 4, everything.labels >= 4

    def part(rows: torch.Tensor) -> LabeledFeatures:
        return LabeledFeatures(Features({}, everything.features.embedding[rows]), everything.labels[rows])

    together, apart, loaded = make(6), make(4), make(6)
    together.fit(everything, None)
    apart.fit(part(old), None)
    apart.add_classes(part(new), 6)
    loaded.load_state_dict(apart.state_dict())
    query = clusters(30, 3, classes=6).features
    torch.testing.assert_close(apart(query), together(query))
    assert torch.equal(loaded(query), apart(query))


def test_a_probe_cannot_add_classes_and_has_no_objectives() -> None:
    head = ProbeHead(INFO, CLASSES, ProbeOptions())
    with pytest.raises(UsageError):
        head.add_classes(clusters(10, 0), 5)
    with pytest.raises(UsageError):
        head.objectives(torch.zeros(1, 3, 32, 32), torch.zeros(1))
