"""What a benchmark leaves: a report that is read back whole, a line a combination, and a chart."""

from __future__ import annotations

import csv
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from fgvc_cli.benchmarking import files
from fgvc_cli.benchmarking.results import Feed
from fgvc_cli.errors import FgvcError, UsageError


def lines(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_report_is_read_back_whole(tmp_path, bench_report, bench_work):
    feed = Feed("first epoch", 212.5, 768, "every image is decoded")
    report = bench_report(feeds=[feed], interrupted=True)
    rows = (replace(report.rows[0], explain={"gradcam": bench_work(9.0)}, epoch=bench_work(9e3, 768, 1)),)
    report = replace(report, rows=rows + report.rows[1:])
    kept = files.BenchFiles(tmp_path / "new")
    kept.keep(report)
    assert files.read_report(tmp_path / "new") == files.read_report(tmp_path / "new/bench.json") == report
    document = json.loads((tmp_path / "new/bench.json").read_text())
    assert document["rows"][0]["explain"]["gradcam"]["images_per_second"] == pytest.approx(1000 * 8 / 9, abs=1e-3)


def test_it_is_written_after_every_row(tmp_path, bench_report, bench_rows):
    kept = files.BenchFiles(tmp_path)
    for done in (1, 2, 3):
        kept.keep(bench_report(bench_rows()[:done]))
        assert len(files.read_report(tmp_path).rows) == len(lines(tmp_path / "bench.csv")) == done
    assert [path.name for path in kept.written] == ["bench.json", "bench.csv"]


def test_a_line_a_combination_with_a_column_a_figure(tmp_path, bench_report, bench_rows, bench_work):
    rows = bench_rows(["vit_b16"])
    rows = (replace(rows[0], explain={"gradcam": bench_work(50.0, peak_memory=7)}), *rows[1:])
    files.BenchFiles(tmp_path).keep(bench_report(rows, settings={"compile": True}))
    first, *_, last = lines(tmp_path / "bench.csv")
    assert {name: first[name] for name in ("backbone", "head", "optimizer", "baseline", "compile", "torch")} == {
        "backbone": "vit_b16", "head": "linear", "optimizer": "sgd", "baseline": "1", "compile": "True",
        "torch": "2.15.0",
    }  # fmt: skip
    assert float(first["update_images_per_second"]) == 80 and float(first["update_ms_high"]) == 101
    assert first["parameters"] == "23700000" and first["update_rounds"] == "20" and first["failed"] == ""
    assert float(first["explain_gradcam_images_per_second"]) == 160 and first["explain_gradcam_peak_memory"] == "7"
    assert first["predict_multiply_adds"] == "" and not any(column.startswith("epoch") for column in first)
    assert last["optimizer"] == "sam over sgd" and last["update_ms"] == "" and last["failed"].startswith("cmal needs")


def test_the_chart_comes_at_the_end_and_only_of_updates(tmp_path, bench_report, bench_rows):
    kept = files.BenchFiles(tmp_path / "a")
    kept.finish(bench_report())
    assert [path.name for path in kept.written] == ["bench.json", "bench.csv", "bench.png"]
    with Image.open(tmp_path / "a/bench.png") as image:
        assert image.format == "PNG"
    failed = files.BenchFiles(tmp_path / "b")
    failed.finish(bench_report(bench_rows()[-1:]))
    assert [path.name for path in failed.written] == ["bench.json", "bench.csv"]
    feeds = files.BenchFiles(tmp_path / "c")
    feeds.finish(bench_report((), [Feed("first epoch", 212.5, 768)]))
    assert [path.name for path in feeds.written] == ["bench.json"]


def test_nothing_measured_leaves_nothing(tmp_path, bench_report):
    kept = files.BenchFiles(tmp_path / "new")
    kept.finish(bench_report((), interrupted=True))
    assert kept.written == [] and not (tmp_path / "new").exists()


def test_one_that_is_replaced_leaves_nothing_of_its_own(tmp_path, bench_report):
    files.BenchFiles(tmp_path).finish(bench_report())
    (tmp_path / "notes.txt").write_text("mine")
    files.BenchFiles(tmp_path).finish(bench_report((), [Feed("first epoch", 212.5, 768)]))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bench.json", "notes.txt"]


def test_the_folder_is_one_for_benchmarks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert files.choose_folder(None, force=False).parent == Path("bench")
    (tmp_path / "bench.json").touch()
    with pytest.raises(UsageError, match="or replace the benchmark in it with --force"):
        files.choose_folder(tmp_path, force=False)


def test_the_newest_other_one_that_can_be_compared(tmp_path, bench_report, bench_rows):
    kept = {name: files.BenchFiles(tmp_path / name) for name in ("a", "b", "c", "d")}
    report = bench_report()
    assert kept["a"].earlier(report) is None
    for seconds, (name, files_of) in enumerate(kept.items()):
        files_of.keep(bench_report(bench_rows(["swin_t"])) if name == "c" else report)
        os.utime(tmp_path / name / "bench.json", (seconds, seconds))
    assert kept["d"].earlier(report) == tmp_path / "b" and kept["a"].earlier(report) == tmp_path / "d"
    (tmp_path / "d/bench.json").write_text("{")
    assert kept["a"].earlier(report) == tmp_path / "b"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.json", None, "there is no such file"),
        (".", None, "has no bench.json"),
        ("bench.json", "{", "is damaged: it is no JSON document"),
        ("bench.json", "[]", "is no result of fgvc bench"),
        ("bench.json", '{"rows": [], "machine": {}, "format": 99}', "has format 99"),
    ],
)
def test_what_is_no_report(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(FgvcError, match=message) as caught:
        files.read_report(tmp_path / name)
    assert str(tmp_path) in str(caught.value)


def changed(document: dict, path: str, value: object) -> None:
    """Set the value at a dotted path."""
    *parts, last = path.split(".")
    for part in parts:
        document = document[int(part) if part.isdecimal() else part]  # type: ignore[call-overload]
    document[last] = value


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("rows.0.update.timing.median", "fast", "Timing.median is 'fast'"),
        ("rows.0.update.timing.median", 0, "8 images in 0 ms"),
        ("rows.0.update.timing.median", float("nan"), "Timing.median is nan"),
        ("rows.0.update.timing.rounds", True, "Timing.rounds is True"),
        ("rows.0.update.images", 0, "0 images in 100.0 ms"),
        ("rows.0.update.peak_memory", "much", "Work.peak_memory is 'much'"),
        ("rows.0.update", 5, "'int' object"),
        ("rows.0.explain", {"gradcam": None}, "Row.explain is"),
        ("rows.0.batch_size", "four", "Row.batch_size is 'four'"),
        ("rows.0.backbone", ["resnet50"], r"Row.backbone is \['resnet50'\]"),
        ("rows.0.parameters", {"head": "many"}, "Row.parameters is"),
        ("rows.0.unknown", 5, "unexpected keyword argument 'unknown'"),
        ("rows", 5, "not iterable"),
        ("machine", [1], "'list' object"),
        ("machine.multiply_adds_per_second", "quick", "multiply_adds_per_second is 'quick'"),
        ("settings.explainers", ["gradcam"], "explainers is"),
        ("feeds", [{"name": "later epochs", "images_per_second": 0, "images": 8}], "images_per_second is 0"),
    ],
)
def test_a_value_that_is_damaged_is_told_when_it_is_read(tmp_path, bench_report, bench_work, path, value, told):
    """Not in the middle of a comparison; and it is no reason to complain when another benchmark ends."""
    report = bench_report()
    document = json.loads(json.dumps(report.as_json()))
    changed(document, path, value)
    for name in ("damaged", "new"):
        (tmp_path / name).mkdir()
    (tmp_path / "damaged/bench.json").write_text(json.dumps(document))
    with pytest.raises(FgvcError, match=rf"bench\.json is damaged: \w+ .*{told}.*\. Measure again\."):
        files.read_report(tmp_path / "damaged")
    assert files.BenchFiles(tmp_path / "new").earlier(report) is None
