from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from fgvc_cli.runs.results import Averages, ClassMetrics, SplitMetrics
from fgvc_cli.scoring.results import most_confident_mistakes, most_confused
from fgvc_cli.scoring.scores import confusion_matrix, expected_calibration_error, split_metrics

NAMES = ("ant", "bee", "cat")


def certain(predictions: list[int], classes: int = 3, sure: float = 0.9) -> np.ndarray:
    """Probabilities with `sure` for the predicted class, the rest shared."""
    rows = np.full((len(predictions), classes), (1 - sure) / (classes - 1))
    rows[np.arange(len(predictions)), predictions] = sure
    return rows


def test_metrics_by_hand(made_scores) -> None:
    # ant: 2 of 4 correct, 1 predicted as bee, 1 as cat. bee: 1 of 1 correct. cat: 1 of 2 correct, 1 predicted as bee.
    found = split_metrics(made_scores(certain([0, 0, 1, 2, 1, 2, 1]), [0, 0, 0, 0, 1, 2, 2]), NAMES)
    assert found.top1 == pytest.approx(4 / 7)
    precision, recall = [2 / 2, 1 / 3, 1 / 2], [2 / 4, 1 / 1, 1 / 2]
    f1 = [2 * p * r / (p + r) for p, r in zip(precision, recall, strict=True)]
    for name, values in (("precision", precision), ("recall", recall), ("f1", f1)):
        assert getattr(found.macro, name) == pytest.approx(np.mean(values))
        assert getattr(found.weighted, name) == pytest.approx(np.average(values, weights=[4, 1, 2]))
    assert found.chance == pytest.approx({"uniform": 1 / 3, "majority": 4 / 7})
    assert found.per_class[2] == ClassMetrics("cat", 2, 0.5, 0.5, 0.5, 0.5)
    assert (found.images, found.classes, found.classes_present) == (7, 3, 3)


def test_a_class_absent_from_the_split_enters_no_average(made_scores) -> None:
    found = split_metrics(made_scores(certain([0, 2]), [0, 1]), NAMES)  # "cat" has no image, but is predicted once
    assert found.macro == Averages(0.5, 0.5, 0.5)
    assert found.classes_present == 2 and found.per_class[2] == ClassMetrics("cat", 0)
    assert SplitMetrics.from_json(json.loads(json.dumps(found.as_json()))) == replace(
        found, per_class=tuple(found.per_class)
    )


def test_top5_needs_more_than_five_classes(made_scores) -> None:
    names = tuple("abcdef")
    assert split_metrics(made_scores(certain([0], 5), [4]), names[:5]).top5 is None
    rows = [[0.3, 0.2, 0.2, 0.1, 0.1, 0.1], [0.3, 0.2, 0.2, 0.15, 0.15, 0.0]]
    assert split_metrics(made_scores(rows, [4, 5]), names).top5 == 0.5


def test_nothing_scored_gives_figures_that_fit_into_json(made_scores) -> None:
    scores = made_scores(np.empty((0, 3)), [], loss=float("nan"), failures={"x.jpg": "truncated"})
    found = json.loads(json.dumps(split_metrics(scores, NAMES).as_json(), allow_nan=False))
    assert found["top1"] is None
    assert found["loss"] is None
    assert found["macro"]["f1"] is None
    assert found["failed"] == 1
    assert most_confused(scores, NAMES) == most_confident_mistakes(scores, NAMES) == []


def test_scores_that_are_not_finite_are_wrong_and_counted(made_scores) -> None:
    rows = certain([0, 0])
    rows[1] = np.nan
    scores = made_scores(rows, [0, 0], loss=float("nan"))
    found = json.loads(json.dumps(split_metrics(scores, NAMES).as_json(), allow_nan=False))
    assert (found["top1"], found["not_finite"], found["loss"]) == (0.5, 1, None)
    assert confusion_matrix(scores).sum() == 1
    assert most_confident_mistakes(scores, NAMES) == []


def test_confusion_matrix_has_true_classes_in_rows(made_scores) -> None:
    matrix = confusion_matrix(made_scores(certain([1, 1, 0]), [0, 0, 2]))
    assert matrix.tolist() == [[0, 2, 0], [0, 0, 0], [1, 0, 0]]


def test_most_confused_pairs_come_by_number_then_share(made_scores) -> None:
    labels = [0, 0, 0, 0, 1, 1, 2]
    scores = made_scores(certain([1, 1, 2, 0, 0, 1, 0]), labels)
    found = most_confused(scores, NAMES, 3)
    assert [(pair.true, pair.predicted, pair.images) for pair in found] == [
        ("ant", "bee", 2),
        ("cat", "ant", 1),
        ("bee", "ant", 1),
    ]
    assert [pair.share for pair in found] == [0.5, 1.0, 0.5]


def test_most_confident_mistakes_name_file_classes_and_probabilities(made_scores) -> None:
    rows = [[0.6, 0.3, 0.1], [0.05, 0.05, 0.9], [0.8, 0.15, 0.05]]
    found = most_confident_mistakes(made_scores(rows, [1, 2, 1]), NAMES, 5)
    assert [mistake.key for mistake in found] == ["2.jpg", "0.jpg"]
    first = found[0]
    assert (first.true, first.predicted) == ("bee", "ant")
    assert (first.probability, first.probability_true) == pytest.approx((0.8, 0.15))


def test_calibration_error_by_hand(made_scores) -> None:
    # Four images at 0.9, three of them right; two at 0.6, both right.
    rows = np.concatenate([certain([0, 0, 0, 0]), certain([0, 0], sure=0.6)])
    error = expected_calibration_error(made_scores(rows, [0, 0, 0, 1, 0, 0]))
    assert error == pytest.approx((4 * abs(0.75 - 0.9) + 2 * abs(1 - 0.6)) / 6, abs=1e-6)
    assert expected_calibration_error(made_scores(certain([0], sure=1.0), [0])) == 0
