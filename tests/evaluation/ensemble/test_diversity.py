"""Diversity measures against counts made by hand and against what their definition promises."""

from __future__ import annotations

import numpy as np
import pytest

from fgvc_cli.evaluation.ensemble import joint_accuracy, pair_diversity, yules_q


@pytest.fixture
def said(made_scores):
    """A function that makes scores of images of class 0 from the predicted classes, a letter each; "-": not finite."""

    def make(predicted: str):
        rows = [[np.nan] * 3 if letter == "-" else np.eye(3)["abc".index(letter)] for letter in predicted]
        return made_scores(rows, [0] * len(predicted))

    return make


def test_the_figures_of_a_pair_are_those_counted_by_hand(said) -> None:
    found = pair_diversity(said("aaaaabbbcc"), said("aaabcabcac"))
    assert found == {
        "both_right": 0.3, "first_only": 0.2, "second_only": 0.2, "one_right": 0.4, "both_wrong": 0.3,
        "both_wrong_same_class": 0.2, "different_predictions": 0.5, "q": pytest.approx((9 - 4) / (9 + 4)),
    }  # fmt: skip


def test_runs_that_say_the_same_have_nothing_to_gain(said) -> None:
    found = pair_diversity(said("aabc"), said("aabc"))
    assert (found["one_right"], found["different_predictions"], found["q"]) == (0, 0, 1)
    assert found["both_wrong"] == found["both_wrong_same_class"] == 0.5


def test_what_is_not_finite_is_wrong_and_agrees_with_nothing(said) -> None:
    found = pair_diversity(said("a--"), said("-a-"))
    assert (found["first_only"], found["second_only"], found["both_wrong"]) == pytest.approx((1 / 3, 1 / 3, 1 / 3))
    assert (found["both_wrong_same_class"], found["different_predictions"]) == (0, 1)


def test_q_is_0_for_independent_runs_and_has_its_ends_where_it_should() -> None:
    assert yules_q(both_right=54, both_wrong=4, first_only=36, second_only=6) == 0  # 90 % and 60 %, independent
    assert yules_q(5, 3, 2, 0) == 1  # the second fails wherever the first does
    assert yules_q(0, 3, 2, 4) == -1
    assert yules_q(5, 0, 3, 0) is None  # one run is right on everything


def test_what_the_runs_get_right_between_them(said) -> None:
    members = [said("aaaabb"), said("aaabab"), said("aababb")]
    assert joint_accuracy(members) == {
        "any_right": pytest.approx(5 / 6), "all_right": pytest.approx(2 / 6), "images_by_right": [1, 1, 2, 2],
    }  # fmt: skip
