from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fgvc_cli.runs.results import EpochMetrics, TrainMetrics, ValMetrics
from fgvc_cli.viz import COUNTED_CLASSES, NAMED_CLASSES, best_epoch, confusion_matrix, learning_curves

BLUE, ORANGE = (0, 114, 178), (213, 94, 0)


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(int)


def amount(path: Path, color: tuple[int, int, int], tolerance: int = 12) -> int:
    """How many pixels have a color."""
    return int((np.abs(pixels(path) - color).max(axis=2) <= tolerance).sum())


def line(epoch: int, loss: float | None, top1: float | None) -> EpochMetrics:
    val = None if top1 is None else ValMetrics(4, loss, top1)
    return EpochMetrics(epoch, TrainMetrics(8, {}, 1 / epoch, 0.5), val)


def test_learning_curves_show_training_and_validation(tmp_path: Path) -> None:
    path, had_pyplot = tmp_path / "curves.png", "matplotlib.pyplot" in sys.modules
    learning_curves(path, [line(e, 2 / e, 0.1 * e) for e in range(1, 6)])
    assert amount(path, BLUE) > 500
    assert amount(path, ORANGE) > 500
    assert list(tmp_path.iterdir()) == [path]
    assert ("matplotlib.pyplot" in sys.modules) == had_pyplot


def test_curves_without_validation_or_with_one_epoch(tmp_path: Path) -> None:
    path = tmp_path / "curves.png"
    learning_curves(path, [line(1, None, None), line(2, float("nan"), None)])
    assert amount(path, BLUE) > 200
    assert amount(path, ORANGE) == 0
    learning_curves(path, [line(1, 2.0, 0.3)])
    assert amount(path, ORANGE) > 50
    learning_curves(path, [])
    assert amount(path, BLUE) == 0


SLOW = (pytest.param(classes, marks=pytest.mark.slow) for classes in (16, 40, 200))


@pytest.mark.parametrize("classes", [2, COUNTED_CLASSES, NAMED_CLASSES + 1, *SLOW])
def test_confusion_matrices_of_all_sizes(tmp_path: Path, classes: int) -> None:
    path = tmp_path / "confusion.png"
    matrix = np.diag(np.full(classes, 9))
    matrix[0] = np.roll(matrix[0], 1)
    confusion_matrix(path, matrix, [f"class {i} with a name longer than fits $_^" for i in range(classes)], "a title")
    assert amount(path, (8, 48, 107)) > 1500  # every other class was right
    assert amount(path, (127, 39, 4)) > 15  # the first class was always taken for the second
    assert max(pixels(path).shape) < 3000


def test_rows_without_images_are_gray_and_names_in_any_script_give_no_warning(tmp_path: Path) -> None:
    path, gray = tmp_path / "confusion.png", (238, 240, 242)
    for matrix, drawn in (([[3, 1], [0, 4]], False), ([[3, 1], [0, 0]], True)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            confusion_matrix(path, np.array(matrix), ["日本", "한국"])
        assert (amount(path, gray, 0) > 5000) == drawn


@pytest.mark.parametrize(
    ("lines", "best"),
    [
        ([line(1, 2.0, 0.3), line(2, 1.5, 0.5), line(3, 1.4, 0.4)], 2),
        ([line(1, 2.0, 0.5), line(2, 1.5, 0.5), line(3, 1.9, 0.5)], 2),  # equal top-1: the lowest loss
        ([line(1, 2.0, 0.5), line(2, 2.0, 0.5)], 1),
        ([line(1, None, 0.5), line(2, 9.0, 0.5)], 2),
        ([line(1, None, None)], None),
        ([], None),
    ],
)
def test_the_best_epoch_is_the_one_whose_model_is_kept(lines: list[EpochMetrics], best: int | None) -> None:
    assert best_epoch(lines) == best
