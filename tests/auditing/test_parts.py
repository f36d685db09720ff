"""The parts of an audit, each compared with a plain implementation."""

from __future__ import annotations

import numpy as np
from PIL import Image

from fgvc_cli.auditing import neighbors
from fgvc_cli.auditing.labels import label_errors, out_of_fold
from fgvc_cli.auditing.neighbors import nearest, unit_vectors
from fgvc_cli.auditing.overlap import overlap


def test_neighbors_in_blocks_are_those_of_all_at_once(monkeypatch) -> None:
    rng = np.random.default_rng(0)
    values = unit_vectors(rng.normal(size=(50, 8)).astype(np.float32))
    monkeypatch.setattr(neighbors, "BLOCK_VALUES", 70)
    found = nearest(values, values, 3, np.arange(50))
    similarity = values @ values.T - 9 * np.eye(50, dtype=np.float32)
    assert np.array_equal(found.indices, np.argsort(-similarity, axis=1)[:, :3])
    assert np.allclose(found.similarities, np.sort(similarity)[:, ::-1][:, :3], atol=1e-6)
    assert nearest(values[:2], values[:2], 5).indices.shape == (2, 2)


def test_swapped_labels_are_found_by_folds_that_keep_copies_together() -> None:
    rng = np.random.default_rng(0)
    true = np.repeat(np.arange(3), 30)
    embeddings = unit_vectors((np.eye(8)[true] + 0.12 * rng.normal(size=(90, 8))).astype(np.float32))
    labels, groups = true.copy(), np.arange(90)
    labels[[3, 40, 70]] = [1, 2, 0]
    embeddings[89], labels[89], groups[89] = embeddings[3], 1, 3  # a copy with the same wrong label
    embeddings[88] = 0  # an image that cannot be read
    held_out = out_of_fold(embeddings, labels, groups, 4)
    assert len(held_out.indices) == 89 and 88 not in held_out.indices
    assert np.allclose(held_out.probabilities.sum(axis=1), 1, atol=1e-5)
    found = label_errors(held_out, labels)
    assert {error.position for error in found} == {3, 40, 70, 89}
    assert {error.position: error.predicted for error in found}[40] == 1


def test_images_that_are_all_copies_or_alone_in_their_class_are_not_judged() -> None:
    embeddings = np.eye(6, dtype=np.float32)
    held_out = out_of_fold(embeddings, np.array([0, 0, 1, 1, 2, 2]), np.array([0, 0, 1, 2, 3, 4]), 3)
    assert held_out.indices.tolist() == [2, 3, 4, 5]
    alone = out_of_fold(embeddings, np.arange(6), np.arange(6), 6)
    assert not len(alone.indices) and label_errors(alone, np.arange(6)) == []


def test_overlap_is_the_correlation_of_the_matching_part() -> None:
    rng = np.random.default_rng(0)
    whole = np.kron(rng.integers(0, 256, (8, 10)), np.ones((4, 4))).astype(np.uint8)
    other = np.kron(rng.integers(0, 256, (8, 10)), np.ones((4, 4))).astype(np.uint8)
    part = whole[2:27, 4:35]
    enlarged = np.asarray(Image.fromarray(part).resize((40, 32)))
    assert overlap(enlarged, whole) == overlap(whole, enlarged) > 0.85 > 0.6 > overlap(whole, other)
