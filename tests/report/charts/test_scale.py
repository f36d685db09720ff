"""Figures at axes are round, few, and where their values are."""

from __future__ import annotations

import pytest

from fgvc_cli.report.charts import Scale, spanning


@pytest.mark.parametrize(
    ("low", "high", "most", "expected"),
    [
        (0, 50, 6, ["0", "10", "20", "30", "40", "50"]),
        (0, 1, 5, ["0.00", "0.25", "0.50", "0.75", "1.00"]),
        (1.13, 2.58, 5, ["1.5", "2.0", "2.5"]),
        (0.0021, 0.0098, 5, ["0.004", "0.006", "0.008"]),
        (0, 0.01, 5, ["0.0000", "0.0025", "0.0050", "0.0075", "0.0100"]),
        (-3, 3, 4, ["-2", "0", "2"]),
    ],
)
def test_figures_are_round(low, high, most, expected):
    assert [tick.text for tick in Scale(low, high).ticks(most)] == expected


@pytest.mark.parametrize("last", [1, 2, 7, 10, 23, 100, 350])
def test_epochs_are_whole_numbers(last):
    ticks = Scale(1, max(last, 2)).ticks(6, whole=True)
    assert 1 <= len(ticks) <= 6 and all(tick.text.isdigit() for tick in ticks)
    assert len({tick.text for tick in ticks}) == len(ticks)


def test_figures_stand_where_their_values_are():
    scale = Scale(20, 60)
    assert {tick.text: tick.at for tick in scale.ticks(5)} == pytest.approx(
        {"20": 0, "30": 0.25, "40": 0.5, "50": 0.75, "60": 1}
    )


@pytest.mark.parametrize("values", [[], [3.0], [0.0, 0.0], [-1.0, 1e-9], [5.0, 5.0, 5.0]])
def test_a_scale_has_room_whatever_the_values(values):
    scale = spanning(values)
    assert scale.low < scale.high and all(0 <= scale.at(value) <= 1 for value in values)
    assert spanning(values, least=0.0).low == min([0.0, *values])
