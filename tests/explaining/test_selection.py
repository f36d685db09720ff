"""The order of images, and images that two runs disagree on."""

from __future__ import annotations

import numpy as np
import pytest

from fgvc_cli.contracts import Split
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.explaining.explanation import class_index
from fgvc_cli.explaining.selection import filter_classes, first_right_second_wrong, round_robin
from fgvc_cli.scoring.scores import Scores


def test_classes_alternate() -> None:
    assert round_robin([2, 2, 0, 0, 0, 1]) == [2, 5, 0, 3, 1, 4]
    assert round_robin([]) == []


def scores(rows, labels, keys) -> Scores:
    return Scores(np.asarray(rows, np.float32), np.asarray(labels, np.int64), list(keys), 0.0)


def test_first_right_second_wrong_is_in_the_order_of_confidence() -> None:
    first = scores([[0.6, 0.4], [0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.7, 0.3]], [0, 0, 0, 0, 0], "abcde")
    second = scores([[0.1, 0.9], [0.2, 0.8], [0.9, 0.1], [0.1, 0.9]], [0, 0, 0, 0], "abcd")  # could not read e
    assert first_right_second_wrong(first, second) == ["b", "a"]
    swapped = scores([[0.9, 0.1], [0.8, 0.2]], [1, 1], "ba")  # another order of images and classes
    assert first_right_second_wrong(first, swapped) == ["b", "a"]


def test_scores_that_are_not_finite_are_wrong() -> None:
    first = scores([[0.6, 0.4], [np.nan, np.nan]], [0, 0], "ab")
    second = scores([[np.nan, np.nan], [0.1, 0.9]], [0, 0], "ab")
    assert first_right_second_wrong(first, second) == ["a"]


def test_classes_are_selected_by_name_and_must_have_images() -> None:
    split = Split("test", [np.zeros((1, 1, 3), np.uint8)] * 3, [0, 2, 0], ["a", "b", "c"])
    names = ("ant", "bee", "cat")
    assert filter_classes(split, [0], names).keys == ["a", "c"]
    assert filter_classes(split, [2, 0], names).keys == ["a", "b", "c"]
    with pytest.raises(FgvcError, match="class=bee.*test"):
        filter_classes(split, [1], names)
    with pytest.raises(UsageError, match=r"class=aant.*Did you mean 'ant'"):
        class_index("aant", names, "class")
