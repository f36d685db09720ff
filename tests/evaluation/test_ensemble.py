"""Averaged scores of several runs, and how their errors differ."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest

from fgvc_cli.evaluation.ensemble import (
    BestMemberComparison,
    JointAccuracy,
    PairDiversity,
    align,
    average,
    cross_entropy,
    yules_q,
)

NAMES = ("ant", "bee", "cat")


def test_classes_are_reordered(made_scores) -> None:
    own = ("cat", "ant", "bee")  # neither its own inverse nor the identity
    scores = made_scores([[0.1, 0.2, 0.7], [0.6, 0.3, 0.1]], [2, 0])
    ours = align(scores, own, NAMES, frozenset())
    assert ours.probabilities.tolist() == np.float32([[0.2, 0.7, 0.1], [0.3, 0.1, 0.6]]).tolist()
    assert [NAMES[label] for label in ours.labels] == [own[label] for label in scores.labels] == ["bee", "cat"]
    assert (ours.predicted == ours.labels).all() and ours.loss == scores.loss


def test_images_that_another_run_could_not_read_are_excluded(made_scores) -> None:
    scores = made_scores([[0.5, 0.5], [0.9, 0.1], [0.2, 0.8]], [0, 0, 1], loss=9.0, failures={"x.jpg": "truncated"})
    ours = align(scores, NAMES[:2], NAMES[:2], frozenset({"0.jpg"}))
    assert ours.keys == ["1.jpg", "2.jpg"] and ours.labels.tolist() == [0, 1]
    assert ours.loss == pytest.approx(-(np.log(0.9) + np.log(0.8)) / 2)  # of the images that are left
    assert ours.failures == {"x.jpg": "truncated"}


def test_members_have_equal_weights(made_scores) -> None:
    rows = ([[0.7, 0.2, 0.1]], [[0.1, 0.8, 0.1]], [[0.1, 0.2, 0.7]])
    ensemble = average([made_scores(row, [1], seconds=2.0) for row in rows])
    assert ensemble.probabilities[0] == pytest.approx([0.3, 0.4, 0.3])
    assert (ensemble.predicted.tolist(), ensemble.seconds) == ([1], 6.0)
    assert ensemble.loss == pytest.approx(-np.log(0.4))


def test_non_finite_scores_of_a_member_make_the_image_wrong(made_scores) -> None:
    good, bad = made_scores([[0.9, 0.1], [0.9, 0.1]], [0, 0]), made_scores([[np.nan, np.nan], [0.8, 0.2]], [0, 0])
    ensemble = average([good, bad])
    assert ensemble.predicted.tolist() == [-1, 0]


def test_failures_of_all_members_are_collected(made_scores) -> None:
    members = [made_scores([[0.5, 0.5]], [0], failures={name: "truncated"}) for name in ("a.jpg", "b.jpg")]
    assert set(average(members).failures) == {"a.jpg", "b.jpg"}


def test_the_cross_entropy_of_probability_0_is_infinite() -> None:
    assert cross_entropy(np.array([[0.0, 1.0]]), np.array([0])) == float("inf")
    assert np.isnan(cross_entropy(np.empty((0, 2)), np.empty(0, int)))


@pytest.fixture
def predicting(made_scores):
    """Function that makes scores of images of class 0 from predicted classes, one letter each; "-": not finite."""

    def make(predicted: str):
        rows = [[np.nan] * 3 if letter == "-" else np.eye(3)["abc".index(letter)] for letter in predicted]
        return made_scores(rows, [0] * len(predicted))

    return make


def test_the_diversity_of_a_pair_counted_by_hand(predicting) -> None:
    found = asdict(PairDiversity.of(predicting("aaaaabbbcc"), predicting("aaabcabcac")))
    assert found == {
        "both_right": 0.3, "first_only": 0.2, "second_only": 0.2, "one_right": 0.4, "both_wrong": 0.3,
        "both_wrong_same_class": 0.2, "different_predictions": 0.5, "q": pytest.approx((9 - 4) / (9 + 4)),
    }  # fmt: skip


def test_non_finite_scores_are_wrong_and_agree_with_nothing(predicting) -> None:
    found = asdict(PairDiversity.of(predicting("a--"), predicting("-a-")))
    assert (found["first_only"], found["second_only"], found["both_wrong"]) == pytest.approx((1 / 3, 1 / 3, 1 / 3))
    assert (found["both_wrong_same_class"], found["different_predictions"]) == (0, 1)


def test_q_is_0_for_independent_errors() -> None:
    assert yules_q(both_right=54, both_wrong=4, first_only=36, second_only=6) == 0  # 90 % and 60 %, independent
    assert yules_q(5, 3, 2, 0) == 1  # the second fails wherever the first does
    assert yules_q(0, 3, 2, 4) == -1
    assert yules_q(5, 0, 3, 0) is None  # one run is right on everything


def test_joint_accuracy(predicting) -> None:
    members = [predicting("aaaabb"), predicting("aaabab"), predicting("aababb")]
    assert asdict(JointAccuracy.of(members)) == {
        "any_right": pytest.approx(5 / 6), "all_right": pytest.approx(2 / 6), "images_by_right": [1, 1, 2, 2],
    }  # fmt: skip


def test_the_ensemble_is_compared_with_its_best_member(predicting) -> None:
    members = [predicting("aabb"), predicting("aaab"), predicting("abab")]
    best = BestMemberComparison.of(["r/a", "r/b", "r/c"], members, predicting("aaaa"))
    assert (best.run, best.difference, best.ensemble_only, best.member_only) == ("r/b", 0.25, 1, 0)
    assert best.p_value == 1 and not best.significant
