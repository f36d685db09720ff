"""The files of a benchmark: the report, one CSV row per combination, and a chart."""

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
from fgvc_cli.errors import FgvcError


def lines(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_report_round_trips(tmp_path, make_report, make_work):
    feed = Feed("first epoch", 212.5, 768, "every image is decoded")
    report = make_report(feeds=[feed], interrupted=True)
    rows = (replace(report.rows[0], explain={"gradcam": make_work(9.0)}, epoch=make_work(9e3, 768, 1)),)
    report = replace(report, rows=rows + report.rows[1:])
    kept = files.BenchFiles(tmp_path / "new")
    kept.save(report)
    assert files.read_report(tmp_path / "new") == files.read_report(tmp_path / "new/bench.json") == report
    document = json.loads((tmp_path / "new/bench.json").read_text())
    assert document["rows"][0]["explain"]["gradcam"]["images_per_second"] == pytest.approx(1000 * 8 / 9, abs=1e-3)


def test_files_are_written_after_every_row(tmp_path, make_report, make_rows):
    kept = files.BenchFiles(tmp_path)
    for done in (1, 2, 3):
        kept.save(make_report(make_rows()[:done]))
        assert len(files.read_report(tmp_path).rows) == len(lines(tmp_path / "bench.csv")) == done
    assert [path.name for path in kept.written] == ["bench.json", "bench.csv"]


def test_csv_columns(tmp_path, make_report, make_rows, make_work):
    rows = make_rows(["vit_b16"])
    rows = (replace(rows[0], explain={"gradcam": make_work(50.0, peak_memory=7)}), *rows[1:])
    files.BenchFiles(tmp_path).save(make_report(rows, settings={"compile": True}))
    first, *_, last = lines(tmp_path / "bench.csv")
    assert {name: first[name] for name in ("backbone", "head", "optimizer", "baseline", "compile", "torch")} == {
        "backbone": "vit_b16", "head": "linear", "optimizer": "sgd", "baseline": "1", "compile": "True",
        "torch": "2.15.0",
    }  # fmt: skip
    assert float(first["update_images_per_second"]) == 80 and float(first["update_ms_high"]) == 101
    assert first["parameters"] == "23700000" and first["update_rounds"] == "20" and first["failed"] == ""
    assert float(first["explain_gradcam_images_per_second"]) == 160 and first["explain_gradcam_peak_memory"] == "7"
    assert first["predict_macs"] == "" and not any(column.startswith("epoch") for column in first)
    assert last["optimizer"] == "sam over sgd" and last["update_ms"] == "" and last["failed"].startswith("cmal needs")


def test_the_chart_is_written_at_the_end_if_there_are_updates(tmp_path, make_report, make_rows):
    kept = files.BenchFiles(tmp_path / "a")
    kept.finish(make_report())
    assert [path.name for path in kept.written] == ["bench.json", "bench.csv", "bench.png"]
    with Image.open(tmp_path / "a/bench.png") as image:
        assert image.format == "PNG"
    failed = files.BenchFiles(tmp_path / "b")
    failed.finish(make_report(make_rows()[-1:]))
    assert [path.name for path in failed.written] == ["bench.json", "bench.csv"]
    feeds = files.BenchFiles(tmp_path / "c")
    feeds.finish(make_report((), [Feed("first epoch", 212.5, 768)]))
    assert [path.name for path in feeds.written] == ["bench.json"]


def test_no_files_without_results(tmp_path, make_report):
    kept = files.BenchFiles(tmp_path / "new")
    kept.finish(make_report((), interrupted=True))
    assert kept.written == [] and not (tmp_path / "new").exists()


def test_a_replaced_benchmark_is_deleted(tmp_path, make_report):
    files.BenchFiles(tmp_path).save(make_report())
    (tmp_path / "bench.png").touch()
    (tmp_path / "notes.txt").write_text("mine")
    files.BenchFiles(tmp_path).finish(make_report((), [Feed("first epoch", 212.5, 768)]))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bench.json", "notes.txt"]


def test_the_newest_comparable_benchmark(tmp_path, make_report, make_rows):
    kept = {name: files.BenchFiles(tmp_path / name) for name in ("a", "b", "c", "d")}
    report = make_report()
    assert kept["a"].earlier(report) is None
    for seconds, (name, files_of) in enumerate(kept.items()):
        files_of.save(make_report(make_rows(["swin_t"])) if name == "c" else report)
        os.utime(tmp_path / name / "bench.json", (seconds, seconds))
    assert kept["d"].earlier(report) == tmp_path / "b" and kept["a"].earlier(report) == tmp_path / "d"
    (tmp_path / "d/bench.json").write_text("{")
    assert kept["a"].earlier(report) == tmp_path / "b"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.json", None, "does not exist"),
        (".", None, "has no bench.json"),
        ("bench.json", "{", "is damaged"),
        ("bench.json", "[]", "is not a benchmark"),
        ("bench.json", '{"rows": [], "machine": {}, "format": 99}', "has format 99"),
    ],
)
def test_files_that_are_not_reports(tmp_path, name, content, message):
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
    ("path", "value", "message"),
    [
        ("rows.0.update.timing.median", "fast", "Timing.median is 'fast'"),
        ("rows.0.update.timing.median", 0, "8 images in 0 ms"),
        ("rows.0.update.timing.median", float("nan"), "Timing.median is nan"),
        ("rows.0.update", 5, "'int' object"),
        ("rows.0.explain", {"gradcam": None}, "Row.explain is"),
        ("rows.0.unknown", 5, "unexpected keyword argument 'unknown'"),
        ("machine", [1], "TypeError"),
        ("machine.macs_per_second", "quick", "macs_per_second is 'quick'"),
        ("feeds", [{"name": "later epochs", "images_per_second": 0, "images": 8}], "images_per_second is 0"),
    ],
)
def test_damaged_values_are_refused(tmp_path, make_report, make_work, path, value, message):
    """When the file is read; a damaged one is skipped when another benchmark looks for one to compare with."""
    report = make_report()
    document = json.loads(json.dumps(report.as_json()))
    changed(document, path, value)
    for name in ("damaged", "new"):
        (tmp_path / name).mkdir()
    (tmp_path / "damaged/bench.json").write_text(json.dumps(document))
    with pytest.raises(FgvcError, match=rf"bench\.json is damaged: .*{message}"):
        files.read_report(tmp_path / "damaged")
    assert files.BenchFiles(tmp_path / "new").earlier(report) is None


def test_reports_of_format_1_are_read(tmp_path, make_report, make_work):
    """They have multiply_adds, over_arithmetic and occlusion for macs, time_vs_mac_bound and sliding_window."""
    report = make_report()
    explained = replace(report.rows[0], explain={"sliding_window": make_work(9.0)})
    report = replace(report, rows=(explained, *report.rows[1:]))
    text = json.dumps({**report.as_json(), "format": 1})
    former = {"macs": "multiply_adds", "time_vs_mac_bound": "over_arithmetic", "sliding_window": "occlusion"}
    for name, old in former.items():
        text = text.replace(f'"{name}', f'"{old}')
    assert '"multiply_adds_per_second"' in text and '"macs' not in text
    (tmp_path / "bench.json").write_text(text)
    assert files.read_report(tmp_path) == report
