"""What `fgvc bench` prints: figures with three digits, what failed and why, what each column means."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from fgvc_cli.benchmarking import text as bench_figures
from fgvc_cli.benchmarking.files import BenchFiles
from fgvc_cli.benchmarking.results import Feed, Report
from fgvc_cli.benchmarking.text import circumstances
from fgvc_cli.cli import console
from fgvc_cli.cli.bench_tables import meanings, show_places, show_report
from fgvc_cli.formatting import count, rate, ratio, share


@pytest.fixture
def shown(capsys, monkeypatch):
    """A function that shows a report at a width and returns the text."""

    def text(report: Report, width: int = 120) -> str:
        monkeypatch.setenv("COLUMNS", str(width))
        console._console.cache_clear()
        show_report(report)
        console._console.cache_clear()
        return capsys.readouterr().out

    return text


def row_of(text: str, name: str) -> list[str]:
    return next(line.split(name)[1].split() for line in text.splitlines() if line.startswith(f"  {name} "))


def test_one_table_fits_120_columns(shown, bench_report):
    text = shown(bench_report())
    table = text[: text.index("failed: ")]
    assert table.count("head + optimizer") == 1 and all(len(line.rstrip()) <= 120 for line in table.splitlines())
    assert row_of(text, "pim + sam over sgd") == [
        "400.0", "±", "4.0", "20.0", "0.25", "160", "23.9", "M", "4.0", "G", "824", "MB", "40", "%", "1.00",
    ]  # fmt: skip
    assert row_of(text, "linear + sgd")[:6] == ["100.0", "±", "1.0", "80.0", "1.00", "320"]


def test_at_80_columns_it_comes_in_two_tables(shown, bench_report):
    text = shown(bench_report(), 80)
    table = text[text.index("head + optimizer") : text.index("failed: ")]
    assert table.count("head + optimizer") == 2 and all(len(line.rstrip()) <= 80 for line in table.splitlines())
    assert "over\n" in table or "arithmetic" in table


def test_what_failed_is_a_row_and_the_reason_is_below_once_for_those_that_share_it(shown, bench_report):
    text = shown(bench_report())
    vit = text[text.index("vit_b16") :]
    assert row_of(vit, "cmal + adamw")[0] == "failed"
    reasons = [line for line in text.splitlines() if line.startswith("failed: ")]
    assert reasons == ["failed: vit_b16 + cmal + (sgd, adamw, sam over sgd): cmal needs three maps of different stride"]


def test_one_reason_for_all_heads_of_a_backbone_is_one_line(bench_rows):
    rows = [replace(row, update=None, failed="too small") for row in bench_rows(["resnet50"])[2:5]]
    assert bench_figures.failures(rows) == ["failed: resnet50 + linear + sam over sgd, pim + (sgd, adamw): too small"]


def test_what_failed_in_part_keeps_its_figures(shown, bench_report, bench_rows):
    (row, *_) = bench_rows(["resnet50"])
    text = shown(bench_report([replace(row, failed="native: it has no attention")]))
    assert "in part: resnet50 + linear + sgd: native: it has no attention" in text
    assert row_of(text, "linear + sgd")[0] == "100.0"


def test_heat_maps_are_shown_once_for_each_head(shown, bench_report, bench_rows, bench_work):
    rows = [replace(row, explain={"gradcam": bench_work(50.0)}) for row in bench_rows(["resnet50"])]
    text = shown(bench_report(rows))
    assert text.count("gradcam") == 3 and row_of(text, "pim: gradcam") == ["50.0", "±", "0.5", "160"]


def test_epochs_are_set_beside_updates(shown, bench_report, bench_rows, bench_work):
    rows = bench_rows(["resnet50"])
    rows = [replace(rows[0], epoch=bench_work(12000.0, 768, 1, ratio=1.0)), *rows[1:]]
    text = shown(bench_report(rows))
    epochs = text[text.index("Epochs over real images") :]
    assert row_of(epochs, "linear + sgd") == ["768", "12.0", "64.0", "1.00", "80", "%"]


def test_the_input_pipeline_alone(shown, bench_report):
    text = shown(bench_report((), [Feed("first epoch", 212.34, 768, "every image is decoded")]))
    assert re.search(r"first epoch +212 +768 +every image is decoded", text)
    assert "head + optimizer" not in text and "update:" not in text
    assert "64 px, batches of 8, fp32" in text


def test_what_was_measured_before_an_interruption_says_so(shown, bench_report):
    assert "interrupted: " in shown(bench_report(interrupted=True)) and "interrupted" not in shown(bench_report())


def test_the_circumstances(bench_report):
    assert circumstances(bench_report(settings={"compile": True, "set": ["head.width=3"]})) == [
        "A Processor, 2 threads; torch 2.15.0, timm 1.0.31, fgvc 0.1.0",
        "64 px, batches of 8, fp32, channels-last where it pays, compiled, 100 classes, recipe finetune, "
        "--set head.width=3",
    ]
    gpu = {"device": "cuda", "device_name": "A GPU", "cuda": "13.0"}
    assert circumstances(bench_report(machine=gpu))[0] == "A GPU; torch 2.15.0, timm 1.0.31, CUDA 13.0, fgvc 0.1.0"


def test_sizes_that_differ_are_in_the_table(shown, bench_report, bench_rows):
    rows = bench_rows(["resnet50"])
    text = shown(bench_report([rows[0], replace(rows[1], batch_size=512), replace(rows[2], image_size=96)]), 130)
    assert "resnet50 at 64 px" in text and "resnet50 at 96 px" in text and "batches of" not in text
    assert row_of(text, "linear + adamw")[0] == "512" and re.search(r"combination|optimizer +batch", text)


def test_only_columns_that_are_shown_are_explained(bench_report, bench_rows, bench_work):
    assert len(meanings(bench_report())) == 6
    assert any("beside linear + sgd on the same backbone" in line for line in meanings(bench_report()))
    (row, *_) = bench_rows()
    assert len(meanings(bench_report([replace(row, update=bench_work(10.0))]))) == 1
    assert "see --seconds" in meanings(bench_report([replace(row, update=bench_work(10.0, rounds=1))]))[1]


def waiting(row, share):
    return replace(row, update=replace(row.update, timing=replace(row.update.timing, waited=share)))


def test_a_processor_that_had_other_work_is_told(shown, bench_report, bench_rows):
    rows = bench_rows(["resnet50"])
    assert "other work" not in shown(bench_report([waiting(row, 0.09) for row in rows]))
    text = shown(bench_report([waiting(rows[0], 0.63), waiting(rows[1], 0.11), *rows[2:]]))
    line = next(line for line in text.splitlines() if line.startswith("the processor had other work: "))
    assert "2 of 9 updates waited for it, the most for 63 % of its time" in line and line.endswith("when it is free.")


def test_a_benchmark_without_figures_offers_no_comparison(tmp_path, capsys, bench_report, bench_rows):
    kept = BenchFiles(tmp_path)
    kept.keep(bench_report(bench_rows()[-1:]))
    show_places(kept, bench_report(bench_rows()[-1:]))
    assert capsys.readouterr().out.splitlines() == [f"written: {tmp_path}/ (bench.json, bench.csv)"]


def test_it_ends_with_the_files_and_a_comparison(tmp_path, monkeypatch, capsys, bench_report):
    monkeypatch.chdir(tmp_path)
    show_places(BenchFiles(tmp_path / "none"), bench_report())
    assert capsys.readouterr().out == ""
    for name, other in (("before", "bench/before OTHER"), ("after it", "bench/before 'bench/after it'")):
        kept = BenchFiles(tmp_path / "bench" / name)
        kept.keep(bench_report())
        show_places(kept, bench_report())
        written, following = capsys.readouterr().out.splitlines()
        assert written.startswith("written: ") and written.endswith("(bench.json, bench.csv)")
        assert following == f"next: fgvc bench compare {other}"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.04123, "0.0412"), (0.9996, "1.00"), (5.128, "5.13"), (9.996, "10.0"), (24.55, "24.6"), (99.96, "100"),
     (1250.4, "1250"), (0.0, "0")],
)  # fmt: skip
def test_rates_have_three_figures(value, text):
    assert rate(value) == text


def test_other_figures(bench_work):
    assert [count(n) for n in (None, 0, 512, 381_700, 23_500_000, 12.34e9, 1.5e12)] == [
        "", "", "512", "382 k", "23.5 M", "12.3 G", "1.5 T",
    ]  # fmt: skip
    assert [bench_figures.spread(w) for w in (bench_work(2.0), bench_work(2e4), bench_work(50.0, rounds=1), None)] == [
        "2.00 ± 0.02", "20000 ± 200", "50.0 (once)", "",
    ]  # fmt: skip
    assert [ratio(v) for v in (None, 0.987, 0.0123)] == ["", "0.99", "0.012"]
    assert [share(v) for v in (None, 0.987, 0.0123)] == ["", "99 %", "1.2 %"]
