"""Scores of several runs, brought into one order and averaged."""

from __future__ import annotations

import numpy as np
import pytest

from fgvc_cli.evaluation.ensemble import align, average, cross_entropy

NAMES = ("ant", "bee", "cat")


def test_classes_come_into_the_order_that_is_wanted(made_scores) -> None:
    own = ("cat", "ant", "bee")  # neither its own inverse nor the identity
    scores = made_scores([[0.1, 0.2, 0.7], [0.6, 0.3, 0.1]], [2, 0])
    ours = align(scores, own, NAMES, frozenset())
    assert ours.probabilities.tolist() == np.float32([[0.2, 0.7, 0.1], [0.3, 0.1, 0.6]]).tolist()
    assert [NAMES[label] for label in ours.labels] == [own[label] for label in scores.labels] == ["bee", "cat"]
    assert (ours.predicted == ours.labels).all() and ours.loss == scores.loss


def test_images_that_another_run_could_not_read_are_left_out(made_scores) -> None:
    scores = made_scores([[0.5, 0.5], [0.9, 0.1], [0.2, 0.8]], [0, 0, 1], loss=9.0, failures={"x.jpg": "truncated"})
    ours = align(scores, NAMES[:2], NAMES[:2], frozenset({"0.jpg"}))
    assert ours.keys == ["1.jpg", "2.jpg"] and ours.labels.tolist() == [0, 1]
    assert ours.loss == pytest.approx(-(np.log(0.9) + np.log(0.8)) / 2)  # of the images that are left
    assert ours.failures == {"x.jpg": "truncated"}


def test_each_member_counts_alike(made_scores) -> None:
    rows = ([[0.7, 0.2, 0.1]], [[0.1, 0.8, 0.1]], [[0.1, 0.2, 0.7]])
    ensemble = average([made_scores(row, [1], seconds=2.0) for row in rows])
    assert ensemble.probabilities[0] == pytest.approx([0.3, 0.4, 0.3])
    assert (ensemble.predicted.tolist(), ensemble.seconds) == ([1], 6.0)
    assert ensemble.loss == pytest.approx(-np.log(0.4))


def test_the_average_loses_no_more_than_the_members_do_on_average(made_scores) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 50).tolist()
    members = []
    for _ in range(3):
        rows = rng.dirichlet(np.ones(4), 50)
        members.append(made_scores(rows, labels, loss=cross_entropy(rows, np.array(labels))))
    assert average(members).loss < np.mean([member.loss for member in members])  # Jensen's inequality


def test_one_member_that_is_not_finite_makes_the_image_wrong(made_scores) -> None:
    good, bad = made_scores([[0.9, 0.1], [0.9, 0.1]], [0, 0]), made_scores([[np.nan, np.nan], [0.8, 0.2]], [0, 0])
    ensemble = average([good, bad])
    assert ensemble.predicted.tolist() == [-1, 0]


def test_what_any_member_could_not_read_has_failed(made_scores) -> None:
    members = [made_scores([[0.5, 0.5]], [0], failures={name: "truncated"}) for name in ("a.jpg", "b.jpg")]
    assert set(average(members).failures) == {"a.jpg", "b.jpg"}


def test_a_true_class_without_probability_costs_infinitely_much() -> None:
    assert cross_entropy(np.array([[0.0, 1.0]]), np.array([0])) == float("inf")
    assert np.isnan(cross_entropy(np.empty((0, 2)), np.empty(0, int)))
