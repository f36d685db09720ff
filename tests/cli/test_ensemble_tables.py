"""The lines that say what an ensemble comes to."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from fgvc_cli.cli.evaluation_tables import SHOWN_PAIRS, _pairs_title, most_complementary, over_best_line, p_text
from fgvc_cli.formatting import run_labels


@pytest.mark.parametrize(
    ("p_value", "text"), [(1.0, "= 1"), (0.999, "= 1"), (0.623, "= 0.62"), (0.0342, "= 0.034"), (1e-9, "< 0.001")]
)
def test_p_values_have_two_figures(p_value: float, text: str) -> None:
    assert p_text(p_value) == text


def test_the_verdict_follows_the_test() -> None:
    best = {"run": "r/a", "difference": 0.021, "ensemble_only": 9, "member_only": 1, "p_value": 0.02}
    line = over_best_line(SimpleNamespace(over_best={**best, "significant": True}), {"r/a": "a"})
    assert line == (
        "ensemble over the best run (a): +2.1 points (images that only the ensemble has right: 9, only the run: 1), "
        "beyond noise (exact McNemar test, p = 0.02)"
    )
    assert "within noise" in over_best_line(SimpleNamespace(over_best={**best, "significant": False}), {"r/a": "a"})


def pair(one_right: float) -> dict:
    shares = dict.fromkeys(("both_wrong", "both_wrong_same_class", "different_predictions"), 0.1)
    return {"runs": ["r/a", "r/b"], "one_right": one_right, "q": None, **shares}


def test_of_many_pairs_the_most_complementary_are_shown_and_that_is_said() -> None:
    found = most_complementary([pair(i / 100) for i in range(SHOWN_PAIRS + 2)])
    assert [each["one_right"] for each in found[:2]] == [0.11, 0.1] and len(found) == SHOWN_PAIRS
    assert "(10 of 12 pairs, the most complementary)" in _pairs_title(10, 12)
    assert "pairs" not in _pairs_title(3, 3)


def test_runs_are_called_by_their_folders_where_that_tells_them_apart() -> None:
    assert run_labels(["x/a", "x/b", "y/b"]) == ["a", "x/b", "y/b"]
    assert run_labels(["/runs/a/"]) == ["a"]


def test_the_current_folder_has_a_name_too(tmp_path, monkeypatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert run_labels(["."]) == ["here"]
