"""Rows, tables and notes of a comparison."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from fgvc_cli.errors import UsageError
from fgvc_cli.experiments.comparison import Spread, compare, differing_settings, groups_of, in_order, rows_of
from fgvc_cli.experiments.folder import FailedRun
from fgvc_cli.experiments.text import cells
from fgvc_cli.scoring.taxonomy import LevelMetrics, TaxonomyMetrics


@pytest.fixture
def made_taxonomy():
    """A function that adds metrics of groups to the evaluation of a run."""

    def make(run, top1, severity):
        levels = [LevelMetrics(name, 2, share, share, 0.5, 1.0) for name, share in {"class": run.top1, **top1}.items()]
        metrics = TaxonomyMetrics(levels, severity, 0.5, 2.0, 2, 0.9, 0.0, 1.0, 1.0, 2.0, 0.5)
        return replace(run, evaluation=replace(run.evaluation, taxonomy=metrics))

    return make


def test_runs_that_differ_in_the_seed_alone_form_one_row(run_of):
    runs = [run_of([True, False], seed=seed, minutes=2 + seed) for seed in (2, 0)]
    first, second = rows_of([*runs, run_of([True, True], epochs=3, optimizer="sam", base="adamw")])
    assert first.seeds == (0, 2) and first.title == "b + h + sgd" and second.optimizer == "sam over adamw"
    assert first.top1.values == (0.5, 0.5) and first.minutes.values == (2, 4) and first.macro_f1.mean == 0.25
    assert first.images_per_second.mean == 100


def test_rows_have_the_top1_of_groups_that_all_runs_have(run_of, made_taxonomy):
    runs = [
        made_taxonomy(run_of([True, False], seed=seed), {"genus": top1}, 1.5) for seed, top1 in ((0, 0.5), (1, 1.0))
    ]
    (table,) = compare([*runs, run_of([True, True], head="x")]).tables
    grouped, plain = sorted(table.rows, key=lambda row: row.head)
    assert grouped.groups["genus"].mean == 0.75 and grouped.severity.mean == 1.5
    assert plain.groups == {} and plain.severity is None
    assert {cells(table, i)["top-1, genus"] for i in (0, 1)} == {"75.0 ± 35.4 %", ""}
    documents = [row.as_json({}, "a") for row in (grouped, plain)]
    assert documents[0]["groups"]["genus"]["mean"] == 0.75 and "groups" not in documents[1]


def test_spread_over_seeds():
    assert Spread((0.5, 1.0)).mean == 0.75 and Spread((0.5, 1.0)).deviation == pytest.approx(0.5**0.5 / 2)
    assert Spread((0.5,)).deviation is None and Spread.of([0.5, None]) is None


def test_differing_settings(run_of):
    wide, narrow, other = (
        run_of([True], head="pim", head_options={"fpn_size": 64}),
        run_of([True], head="pim", head_options={"fpn_size": 8}),
        run_of([True], head="cmal", head_options={"width": 1}),
    )
    assert differing_settings(rows_of([wide, narrow, other])) == {"head.fpn_size": ["64", "8", ""]}
    assert differing_settings(rows_of([wide, other])) == {}, "options of different heads are not compared"
    assert differing_settings(rows_of([wide, run_of([True], epochs=57)])) == {"train.epochs": ["2", "57"]}


def test_best_first_and_a_letter_shared_without_significant_difference(run_of):
    runs = [
        run_of([False] * 40, head="none"),
        run_of([True] * 20 + [False] * 20, head="half"),
        run_of([True] * 19 + [False] * 21, head="nearly"),
    ]
    (table,) = compare(runs).tables
    assert [row.head for row in table.rows] == ["half", "nearly", "none"]
    assert table.letters == ["a", "a", "b"]
    assert table.gap(0) is None and table.gap(1).points == pytest.approx(1 / 40)
    assert table.standard_error == pytest.approx(0.5 / 40**0.5)


@pytest.mark.parametrize("facts", [{"keys": ("0.png", "other.png")}, {"dataset": "fish"}, {"split": "val"}])
def test_runs_on_different_images_are_in_different_tables(run_of, facts):
    tables = compare([run_of([True, True], **facts), run_of([True, False]), run_of([True, True], head="x")]).tables
    assert [len(table.rows) for table in tables] == [2, 1]


def test_an_unreadable_image_is_ignored_in_the_pairs_alone(run_of):
    (table,) = compare([run_of([True, False, True]), run_of([True, False], head="x", failures=("2.png",))]).tables
    assert table.gap(1).points == 0  # on the two images that both have
    assert [row.top1.mean for row in table.rows] == [pytest.approx(2 / 3), 0.5]


@pytest.mark.parametrize(
    ("first", "second", "noted"),
    [
        ({"epochs": 60}, {}, ["train.epochs"]),
        ({"device": "GPU"}, {}, ["GPU", "cpu (1 thread)", "images/s"]),
        ({"size": 128}, {}, ["image_size (128, 64)"]),
        ({"data": "/photos"}, {"data": "/others"}, ["/others and /photos"]),
        ({}, {"head": "h"}, ["same seed"]),
    ],
)
def test_notes_name_what_limits_the_comparison(run_of, first, second, noted):
    (table,) = compare([run_of([True], **first), run_of([False], **{"head": "x", **second})]).tables
    (note,) = table.notes
    assert all(text in note for text in noted)


def test_without_a_reason_there_is_no_note(run_of):
    runs = [run_of([True]), run_of([True], head="x", seed=0), run_of([True], head="x", seed=1)]
    assert compare(runs[:2]).tables[0].notes == []
    assert "numbers of seeds" in compare(runs).tables[0].notes[0]


def test_orders_and_groups(run_of):
    runs = [run_of([True, False], head="slow", minutes=9), run_of([True, True], head="quick", minutes=1, backbone="z")]
    rows = compare(runs).tables[0].rows
    assert [rows[i].head for i in in_order(rows, "minutes")] == ["quick", "slow"]
    assert in_order(rows, "given") == [1, 0] and in_order(rows, "top1") == [0, 1] == in_order(rows, "f1")
    assert groups_of(rows, "backbone") == ["z", "b"] and groups_of(rows, "none") == ["", ""]
    with pytest.raises(UsageError, match="minute.*'minutes'"):
        in_order(rows, "minute")
    with pytest.raises(UsageError, match="heads.*'head'"):
        groups_of(rows, "heads")


def test_the_json_document(run_of):
    failed = FailedRun("x-seed0", "b", "x", "sgd", 0, "no memory")
    comparison = compare([run_of([True, False]), run_of([True, True], head="y", epochs=3)], [failed], ["z-seed1"])
    document = json.loads(json.dumps(comparison.as_json()))
    (table,) = document["sections"]
    first, second = table["rows"]
    assert (first["head"], first["top1"]["mean"], first["settings"]) == ("y", 1.0, {"train.epochs": "3"})
    (difference,) = table["differences"]
    assert second["letters"] == "a" and not difference["clear"]
    assert [difference[key] for key in ("first", "second", "first_row", "second_row")] == [
        "b + y + sgd", "b + h + sgd", 0, 1,
    ]  # fmt: skip
    assert document["failed"][0]["reason"] == "no memory" and document["unfinished"] == ["z-seed1"]
