from __future__ import annotations

import numpy as np
import pytest

from fgvc_cli.contracts import Split
from fgvc_cli.data.opening import match_classes
from fgvc_cli.errors import FgvcError, UsageError

CLASSES = ("finch", "jay", "owl", "wren")


def split(labels: list[int]) -> Split:
    images = [np.zeros((2, 2, 3), np.uint8) for _ in labels]
    return Split("test", images, labels, [f"{i}.png" for i in range(len(labels))], origin="somewhere")


def test_labels_follow_the_names(capsys: pytest.CaptureFixture[str]) -> None:
    matched = match_classes(split([0, 2, 2, 3]), CLASSES, ("wren", "owl", "tit", "finch"), ignore_unknown=False)
    assert list(matched.labels) == [3, 1, 1, 0]
    assert list(matched.keys) == ["0.png", "1.png", "2.png", "3.png"]
    assert (matched.name, matched.origin) == ("test", "somewhere")
    assert capsys.readouterr().err == ""


def test_a_class_without_images_does_not_count() -> None:
    assert list(match_classes(split([0]), CLASSES, ("finch",), ignore_unknown=False).labels) == [0]


def test_unknown_classes_are_listed_and_refused() -> None:
    with pytest.raises(UsageError, match=r"2 classes of the test split are unknown.*'jay', 'owl'\. .*--ignore-unknown"):
        match_classes(split([0, 1, 2, 3]), CLASSES, ("finch", "wren"), ignore_unknown=False)
    with pytest.raises(UsageError, match=r"1 class of .*'finch'\. Did you mean 'Finch'\?"):
        match_classes(split([0]), CLASSES, ("Finch", "wren"), ignore_unknown=False)


def test_unknown_classes_can_be_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    matched = match_classes(split([0, 1, 1, 3]), CLASSES, ("wren", "finch"), ignore_unknown=True)
    assert list(matched.labels) == [1, 0]
    assert list(matched.keys) == ["0.png", "3.png"]
    assert "left out 2 images of classes unknown to this model: 'jay'" in capsys.readouterr().err


def test_nothing_left() -> None:
    with pytest.raises(FgvcError, match="No image of the test split is of a class that this model knows"):
        match_classes(split([1, 1]), CLASSES, ("wren",), ignore_unknown=True)
