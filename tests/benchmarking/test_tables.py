"""The tables of `fgvc bench`."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from fgvc_cli.benchmarking import text as bench_figures
from fgvc_cli.benchmarking.results import Feed
from fgvc_cli.cli.bench_tables import show_report


@pytest.fixture
def shown(printed):
    """Prints a report in a terminal of some columns and returns the text."""
    return lambda report, columns=120: printed(lambda: show_report(report), columns)


def row_of(text: str, name: str) -> list[str]:
    return next(line.split(name)[1].split() for line in text.splitlines() if line.startswith(f"  {name} "))


def test_one_table_fits_120_columns(shown, make_report):
    text = shown(make_report())
    table = text[: text.index("failed: ")]
    assert table.count("head + optimizer") == 1 and all(len(line.rstrip()) <= 120 for line in table.splitlines())
    assert row_of(text, "pim + sam over sgd") == [
        "400.0", "±", "4.0", "20.0", "0.25", "160", "23.9", "M", "4.0", "G", "824", "MB", "40", "%", "1.00",
    ]  # fmt: skip
    assert row_of(text, "linear + sgd")[:6] == ["100.0", "±", "1.0", "80.0", "1.00", "320"]


def test_partial_failures_keep_their_figures(shown, make_report, make_rows):
    (row, *_) = make_rows(["resnet50"])
    text = shown(make_report([replace(row, failed="native: it has no attention")]))
    assert "failed in part: resnet50 + linear + sgd: native: it has no attention" in text
    assert row_of(text, "linear + sgd")[0] == "100.0"


def test_saliency_maps_are_shown_once_per_head(shown, make_report, make_rows, make_work):
    rows = [replace(row, explain={"gradcam": make_work(50.0)}) for row in make_rows(["resnet50"])]
    text = shown(make_report(rows))
    assert text.count("gradcam") == 3 and row_of(text, "pim: gradcam") == ["50.0", "±", "0.5", "160"]


def test_epochs_are_compared_with_updates(shown, make_report, make_rows, make_work):
    rows = make_rows(["resnet50"])
    rows = [replace(rows[0], epoch=make_work(12000.0, 768, 1, ratio=1.0)), *rows[1:]]
    text = shown(make_report(rows))
    epochs = text[text.index("Epochs over real images") :]
    assert row_of(epochs, "linear + sgd") == ["768", "12.0", "64.0", "1.00", "80", "%"]


def test_the_input_pipeline_alone(shown, make_report):
    text = shown(make_report((), [Feed("first epoch", 212.34, 768, "see `image_size`")]))
    assert re.search(r"first epoch +212 +768 +see --image-size", text)
    assert "head + optimizer" not in text and "update:" not in text
    assert "64 px, batches of 8, fp32" in text


def test_differing_sizes_are_in_the_table(shown, make_report, make_rows):
    rows = make_rows(["resnet50"])
    text = shown(make_report([rows[0], replace(rows[1], batch_size=512), replace(rows[2], image_size=96)]), 130)
    assert "resnet50 at 64 px" in text and "resnet50 at 96 px" in text and "batches of" not in text
    assert row_of(text, "linear + adamw")[0] == "512" and re.search(r"combination|optimizer +batch", text)


def with_waiting(row, share):
    return replace(row, update=replace(row.update, timing=replace(row.update.timing, waited=share)))


def test_a_busy_cpu_is_reported(shown, make_report, make_rows):
    rows = make_rows(["resnet50"])
    assert "busy" not in shown(make_report([with_waiting(row, 0.09) for row in rows]))
    text = shown(make_report([with_waiting(rows[0], 0.63), with_waiting(rows[1], 0.11), *rows[2:]]))
    line = next(line for line in text.splitlines() if line.startswith("the CPU was busy"))
    assert "2 of 9 updates" in line and "63 %" in line


def test_spread(make_work):
    works = make_work(2.0), make_work(2e4), make_work(50.0, rounds=1), None
    assert [bench_figures.spread(work) for work in works] == ["2.00 ± 0.02", "20000 ± 200", "50.0 (once)", ""]
