"""Which images: classes in turn, and runs that differ."""

from __future__ import annotations

import numpy as np
import pytest

from fgvc_cli.contracts import Split
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.explaining.selection import class_index, differing, in_turn, of_classes
from fgvc_cli.scoring.scores import Scores


def test_classes_take_turns() -> None:
    assert in_turn([2, 2, 0, 0, 0, 1]) == [2, 5, 0, 3, 1, 4]
    assert in_turn([]) == []


def scores(rows, labels, keys) -> Scores:
    return Scores(np.asarray(rows, np.float32), np.asarray(labels, np.int64), list(keys), 0.0)


def test_runs_differ_where_the_first_is_right_and_the_second_wrong_the_surest_first() -> None:
    first = scores([[0.6, 0.4], [0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.7, 0.3]], [0, 0, 0, 0, 0], "abcde")
    second = scores([[0.1, 0.9], [0.2, 0.8], [0.9, 0.1], [0.1, 0.9]], [0, 0, 0, 0], "abcd")  # could not read e
    assert differing(first, second) == ["b", "a"]
    swapped = scores([[0.9, 0.1], [0.8, 0.2]], [1, 1], "ba")  # another order, and another order of classes
    assert differing(first, swapped) == ["b", "a"]


def test_scores_that_are_not_finite_are_wrong() -> None:
    first = scores([[0.6, 0.4], [np.nan, np.nan]], [0, 0], "ab")
    second = scores([[np.nan, np.nan], [0.1, 0.9]], [0, 0], "ab")
    assert differing(first, second) == ["a"]


def test_classes_are_found_by_name_and_must_have_images() -> None:
    split = Split("test", [np.zeros((1, 1, 3), np.uint8)] * 3, [0, 2, 0], ["a", "b", "c"])
    names = ("ant", "bee", "cat")
    assert of_classes(split, [0], names).keys == ["a", "c"]
    assert of_classes(split, [2, 0], names).keys == ["a", "b", "c"]
    with pytest.raises(FgvcError, match="--class bee: the test split has no image of that class"):
        of_classes(split, [1], names)
    with pytest.raises(UsageError, match=r"--class aant.*Did you mean 'ant'"):
        class_index("aant", names, "--class")
