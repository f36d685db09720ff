"""What is ranked together, and what is said where runs were not alike."""

from __future__ import annotations

import json

import pytest

from fgvc_cli.errors import UsageError
from fgvc_cli.experiments.comparison import compare, groups_of, in_order
from fgvc_cli.experiments.folder import FailedRun


def test_the_best_comes_first_and_what_does_not_differ_shares_a_letter(run_of):
    runs = [
        run_of([False] * 40, head="none"),
        run_of([True] * 20 + [False] * 20, head="half"),
        run_of([True] * 19 + [False] * 21, head="nearly"),
    ]
    (section,) = compare(runs).sections
    assert [row.head for row in section.rows] == ["half", "nearly", "none"]
    assert section.letters == ["a", "a", "b"]
    assert section.behind(0) is None and section.behind(1).points == pytest.approx(1 / 40)
    assert section.standard_error == pytest.approx(0.5 / 40**0.5)


def test_runs_on_other_images_are_not_ranked_together(run_of):
    same = [run_of([True, False]), run_of([True, True], head="x")]
    for other in (
        run_of([True, True], keys=("0.png", "other.png")),
        run_of([True, True], dataset="fish"),
        run_of([True, True], split="val"),
    ):
        sections = compare([other, *same]).sections
        assert [len(section.rows) for section in sections] == [2, 1]


def test_an_image_that_one_run_could_not_read_is_left_out_of_the_pairs_alone(run_of):
    whole = run_of([True, False, True])
    without = run_of([True, False], head="x", failures=("2.png",))
    (section,) = compare([whole, without]).sections
    assert section.behind(1).points == 0  # of the two images that both have
    assert [row.top1.mean for row in section.rows] == [pytest.approx(2 / 3), 0.5]


def test_what_was_not_alike_is_said(run_of):
    runs = [
        run_of([True], epochs=60, device="GPU"),
        run_of([False], head="x", seed=0),
        run_of([True], head="x", seed=1),
    ]
    (section,) = compare(runs).sections
    said = " ".join(section.notes)
    assert "more than their components: train.epochs." in said
    assert "same device (GPU, cpu (1 thread)): minutes and images a second do not compare" in said
    assert "Not every row has the same number of seeds." in said
    (section,) = compare([run_of([True]), run_of([True], head="x", size=128)]).sections
    assert section.notes == ["Not every run saw its images alike: image_size (64, 128)."]
    assert compare([run_of([True]), run_of([True], head="x")]).sections[0].notes == []


def test_runs_that_may_not_be_what_they_seem_are_said(run_of):
    (section,) = compare([run_of([True], data="/photos"), run_of([True], head="x", data="/others")]).sections
    assert section.notes == ["Images of one name are taken for one image, and come from /others and /photos."]
    (section,) = compare([run_of([True]), run_of([False])]).sections
    assert section.notes == ["Runs of one row have the same seed: their spread is not that of seeds."]


def test_orders_and_groups(run_of):
    runs = [run_of([True, False], head="slow", minutes=9), run_of([True, True], head="quick", minutes=1, backbone="z")]
    rows = compare(runs).sections[0].rows
    assert [rows[place].head for place in in_order(rows, "minutes")] == ["quick", "slow"]
    assert in_order(rows, "given") == [1, 0] and in_order(rows, "top1") == [0, 1] and in_order(rows, "f1") == [0, 1]
    assert groups_of(rows, "backbone") == ["z", "b"] and groups_of(rows, "none") == ["", ""]
    with pytest.raises(UsageError, match="Did you mean 'minutes'"):
        in_order(rows, "minute")
    with pytest.raises(UsageError, match="Did you mean 'head'"):
        groups_of(rows, "heads")


def test_the_document_is_json_and_says_all_of_it(run_of):
    failed = FailedRun("x-seed0", "b", "x", "sgd", 0, "no memory")
    comparison = compare([run_of([True, False]), run_of([True, True], head="y", epochs=3)], [failed], ["z-seed1"])
    document = json.loads(json.dumps(comparison.as_json()))
    (section,) = document["sections"]
    first, second = section["rows"]
    assert (first["head"], first["top1"]["mean"], first["settings"]) == ("y", 1.0, {"train.epochs": "3"})
    assert second["letters"] == "a" and section["differences"][0]["second"] == "b + h + sgd"
    assert document["failed"][0]["reason"] == "no memory" and document["unfinished"] == ["z-seed1"]
