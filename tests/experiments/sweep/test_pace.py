"""How long a study will still take."""

from __future__ import annotations

import pytest

from fgvc_cli.experiments.running import Eta


def test_nothing_is_known_before_a_run_has_come_anywhere():
    assert Eta().left(["a"], {"r": ("a", 5.0, 0.001)}, 1) is None


def test_other_seeds_take_what_a_combination_took_and_unknown_ones_the_mean():
    pace = Eta()
    pace.finished("a", 100.0)
    pace.finished("b", 300.0)
    assert pace.left(["a", "b"], {}, 1) == 400.0
    assert pace.left(["c"], {}, 1) == 200.0
    pace.finished("a", 200.0)
    assert pace.left(["a"], {}, 1) == 150.0


def test_a_run_at_work_tells_its_own_pace():
    assert Eta().left(["b"], {"r": ("a", 30.0, 0.25)}, 1) == pytest.approx(90.0 + 120.0)
    pace = Eta({"a": [1000.0]})
    assert pace.left([], {"r": ("a", 30.0, 0.5)}, 1) == pytest.approx(30.0)
    assert pace.left([], {"r": ("a", 1.0, 0.0)}, 1) == pytest.approx(1000.0), "it has not come anywhere yet"


def test_several_at_a_time_share_the_work_but_none_is_quicker_than_itself():
    pace = Eta({"a": [100.0]})
    assert pace.left(["a", "a", "a", "a"], {}, 2) == 200.0
    assert pace.left([], {"r": ("a", 10.0, 0.1), "s": ("a", 99.0, 0.99)}, 2) == pytest.approx(90.0)
