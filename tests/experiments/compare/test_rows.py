"""Which runs are one row, and in what rows differ."""

from __future__ import annotations

import pytest

from fgvc_cli.experiments.comparison import Spread, different_settings, rows_of


def test_runs_that_differ_in_the_seed_alone_are_one_row(run_of):
    runs = [run_of([True, False], seed=seed) for seed in (2, 0)] + [run_of([True, True], seed=0, epochs=3)]
    first, second = rows_of(runs)
    assert first.seeds == (0, 2) and second.seeds == (0,)
    assert first.title == "b + h + sgd" and first.top1.values == (0.5, 0.5)


def test_a_base_is_part_of_the_optimizers_name(run_of):
    (row,) = rows_of([run_of([True], optimizer="sam", base="adamw")])
    assert row.optimizer == "sam over adamw"


def test_figures(run_of):
    (row,) = rows_of([run_of([True, False], seed=0, minutes=2), run_of([True, True], seed=1, minutes=4)])
    assert row.top1.mean == 0.75 and row.top1.deviation == pytest.approx(0.5**0.5 / 2)
    assert row.macro_f1.mean == 0.375 and row.minutes.mean == 3 and row.images_per_second.mean == 100
    assert Spread((0.5,)).deviation is None


def test_settings_that_differ_are_named(run_of):
    rows = rows_of([run_of([True], head="linear", epochs=60), run_of([True], head="pim", epochs=57)])
    assert different_settings(rows) == {"train.epochs": ["60", "57"]}


def test_options_of_a_component_are_named_where_they_alone_tell_rows_apart(run_of):
    wide, narrow, other = (
        run_of([True], head="pim", head_options={"fpn_size": 64}),
        run_of([True], head="pim", head_options={"fpn_size": 8}),
        run_of([True], head="cmal", head_options={"width": 1}),
    )
    assert different_settings(rows_of([wide, narrow, other])) == {"head.fpn_size": ["64", "8", ""]}
    assert different_settings(rows_of([wide, other])) == {}
