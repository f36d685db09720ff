"""Example images: choice, size and description."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from fgvc_cli.report.examples import choose_typical
from fgvc_cli.report.pictures import MAX_BYTES, peak_text, picture
from fgvc_cli.report.predictions import confused, mistakes
from fgvc_cli.scoring.results import Prediction, read_predictions


def predictions(right: int, wrong: int) -> list[Prediction]:
    of_right = [Prediction(f"r{i:03}", "ant", "ant", 0.9, 0.9) for i in range(right)]
    return [*of_right, *(Prediction(f"w{i:03}", "ant", "bee", 0.5, 0.3) for i in range(wrong))]


@pytest.mark.parametrize(
    ("right", "wrong", "images", "expected"),
    [
        (100, 100, 6, (3, 3)), (100, 1, 6, (5, 1)), (1, 100, 6, (1, 5)), (2, 1, 6, (2, 1)), (100, 0, 4, (4, 0)),
        (9, 9, 1, (1, 0)),
    ],
)  # fmt: skip
def test_half_of_the_images_are_wrong_where_there_are_enough(right, wrong, images, expected):
    chosen = choose_typical(predictions(right, wrong), images)
    assert (sum(p.is_right for p in chosen), sum(not p.is_right for p in chosen)) == expected
    assert len({p.key for p in chosen}) == len(chosen)


def test_typical_images_are_spread_and_deterministic():
    rows = predictions(100, 0)
    keys = [p.key for p in choose_typical(rows, 4)]
    assert keys == ["r012", "r037", "r062", "r087"] == [p.key for p in choose_typical(rows[::-1], 4)]
    common = [*rows, Prediction("x", "rare", "rare", 0.9, 0.9)]
    assert {p.true for p in choose_typical(common, 2)} == {"ant", "rare"}


def test_mistakes_are_sorted_by_confidence_without_unscored_images():
    rows = [
        Prediction("a", "ant", "bee", 0.6, 0.1),
        Prediction("b", "ant", "ant", 0.99, 0.99),
        Prediction("c", "bee", "ant", 0.8, 0.1),
        Prediction("d", "bee", "", float("nan"), float("nan")),
    ]
    assert [p.key for p in mistakes(rows)] == ["c", "a"]
    assert confused(rows) == {("ant", "bee"): 1, ("ant", "ant"): 1, ("bee", "ant"): 1}


def test_predictions_are_read_back(tmp_path):
    file = tmp_path / "predictions.csv"
    header = "key,true,predicted,probability,correct,true_probability,true_rank\n"
    file.write_text(f'{header}"a,b.png",ant,bee,0.600000,0,0.300000,2\nc.png,bee,,,0,,\n', encoding="utf-8")
    first, second = read_predictions(file)
    assert first == Prediction("a,b.png", "ant", "bee", 0.6, 0.3)
    assert (second.predicted, second.is_right) == ("", False)
    file.write_text(f"{header}a,ant,bee,much,0,0.3,2\n", encoding="utf-8")
    with pytest.raises(Exception, match=r"predictions\.csv is damaged"):
        read_predictions(file)


@pytest.mark.parametrize("side", [8, 256, 700])
def test_pictures_stay_below_the_size_limit(side):
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    made = picture(Image.fromarray(noise), "Noise.")
    data = base64.b64decode(made.uri.removeprefix("data:image/webp;base64,"))
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "WEBP" and image.width <= side
    assert len(data) <= MAX_BYTES and made.alt == "Noise."


@pytest.mark.parametrize(
    ("row", "column", "words"),
    [(0, 0, "strongest at the upper left"), (1, 1, "strongest in the middle"), (1, 2, "strongest at the right")],
)
def test_where_a_map_peaks(row, column, words):
    saliency = np.full((9, 9), 0.2, np.float32)
    saliency[3 * row + 1, 3 * column + 1] = 1
    assert peak_text(saliency).startswith(words)
    assert peak_text(np.zeros((9, 9), np.float32)) == "blank"
