"""Comparison of two reports: matching, differences, and the significance of ratios."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from fgvc_cli.benchmarking.comparing import WorkPair, compare
from fgvc_cli.benchmarking.results import report_from_json
from fgvc_cli.errors import FgvcError


def faster(row, make_work, times):
    """The same row, several times as fast, in half the memory."""
    update = make_work(row.update.timing.median / times, peak_memory=row.update.peak_memory // 2)
    return replace(row, update=update)


@pytest.mark.parametrize("change", [
    {"backbone": "swin_t"}, {"head": "other"}, {"optimizer_title": "sam over adamw"}, {"image_size": 96},
    {"batch_size": 16},
])  # fmt: skip
def test_only_the_same_combination_at_the_same_sizes_is_compared(make_report, make_rows, change):
    rows = make_rows(["resnet50"])
    other = [*rows[:-1], replace(rows[-1], **change)]
    comparison = compare(make_report(rows), make_report(other))
    assert len(comparison.rows) == len(rows) - 1
    assert comparison.only_first == (rows[-1],) and comparison.only_second == (other[-1],)


@pytest.mark.parametrize(
    ("first", "second", "clear"),
    [
        ((100, 20), (103, 20), True),  # 99 to 101 and 101.97 to 104.03
        ((103, 20), (100, 20), True),
        ((100, 20), (101, 20), False),  # 99 to 101 and 99.99 to 102.01
        ((100, 2), (300, 20), None),
        ((100, 20), (300, 1), None),
    ],
)
def test_a_difference_within_the_spread_is_not_clear(make_work, first, second, clear):
    pair = WorkPair("update", make_work(first[0], rounds=first[1]), make_work(second[0], rounds=second[1]))
    assert pair.clear is clear


def test_epochs_of_different_numbers_of_images_are_compared_by_image(make_work):
    pair = WorkPair("epoch", make_work(1000.0, 100), make_work(2000.0, 200))
    assert pair.ratio == 1 and pair.clear is False


def test_only_common_measurements_are_paired(make_report, make_rows, make_work):
    (row, *_) = make_rows(["resnet50"])
    first = replace(row, explain={"gradcam": make_work(10.0), "native": make_work(5.0)}, epoch=make_work(9e3, 768))
    second = replace(row, explain={"native": make_work(10.0)}, update=None, failed="out of memory")
    (pair,) = compare(make_report([first]), make_report([second])).rows
    assert [(work.name, work.ratio) for work in pair.works] == [("predict", 1.0), ("native", 0.5)]


def test_differences_of_machine_and_settings(make_report):
    first = make_report()
    second = make_report(
        machine={"device_name": "Another", "date": "later", "macs_per_second": 1.0, "driver": "1"},
        settings={"precision": "bf16", "image_size": 96, "seconds": 9.0, "set": ["head.width=3"]},
    )
    found = {d.name: (d.first, d.second) for d in compare(first, second).differences}
    assert found == {
        "device_name": ("A Processor", "Another"),
        "driver": (None, "1"),
        "precision": ("fp32", "bf16"),
        "set": ([], ["head.width=3"]),
    }


def test_a_report_read_from_a_file_does_not_differ(make_report):
    report = make_report(settings={"set": ("a.b=1",)})
    read = report_from_json(json.loads(json.dumps(report.as_json())), "bench.json")
    assert compare(report, read).differences == ()


def test_settings_of_optional_measurements_do_not_differ(make_report):
    epochs = {"epoch": True, "dataset": "demo", "data": None, "explainers": {"gradcam": {"map": 0}, "native": {}}}
    assert compare(make_report(), make_report(settings=epochs)).differences == ()
    others = {**epochs, "dataset": "cub200", "explainers": {"gradcam": {"map": 1}}}
    found = compare(make_report(settings=epochs), make_report(settings=others)).differences
    assert {d.name for d in found} == {"explainers", "dataset"}
    explainers = next(d for d in found if d.name == "explainers")
    assert (explainers.first, explainers.second) == ({"gradcam": {"map": 0}}, {"gradcam": {"map": 1}})


def test_reports_without_a_common_combination_are_refused(make_report, make_rows):
    first, second = make_report(make_rows(["resnet50"])), make_report(make_rows(["swin_t"])[:1])
    with pytest.raises(FgvcError) as caught:
        compare(first, second).check("a", "b")
    for fact in ("a has resnet50 + linear + sgd at 64 px, batches of 8 and 8 more", "b has swin_t + linear + sgd"):
        assert fact in str(caught.value)
    compare(first, first).check("a", "b")


def test_reports_without_a_common_measurement_are_refused(make_report, make_rows):
    (row, *_) = make_rows(["resnet50"])
    failed = replace(row, update=None, predict=None, failed="out of memory")
    with pytest.raises(FgvcError, match=r"resnet50 \+ linear \+ sgd at 64 px, batches of 8: out of memory"):
        compare(make_report([row]), make_report([failed])).check("a", "b")
    with pytest.raises(FgvcError, match="different operations"):
        compare(make_report([replace(row, predict=None)]), make_report([replace(row, update=None)])).check("a", "b")


def test_the_json_document(make_report, make_rows, make_work):
    rows = make_rows(["vit_b16"])
    document = compare(
        make_report(rows), make_report([*(faster(row, make_work, 4) for row in rows[:1]), *rows[1:-1]])
    ).as_json()
    first = document["rows"][0]
    assert first["optimizer"] == "sgd" and first["works"]["update"] == {
        "first": 80.0, "second": 320.0, "ratio": 4.0, "clear": True, "memory_ratio": 0.5,
    }  # fmt: skip
    assert document["rows"][-1]["failed_first"] == "cmal needs three maps of different stride"
    assert [row["optimizer"] for row in document["only_first"]] == ["sam over sgd"] and document["only_second"] == []
    json.dumps(document, allow_nan=False)
