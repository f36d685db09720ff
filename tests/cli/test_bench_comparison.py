"""What `fgvc bench compare` prints."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from fgvc_cli.benchmarking.comparing import compare
from fgvc_cli.benchmarking.results import Feed
from fgvc_cli.cli import console
from fgvc_cli.cli.bench_comparison import show_comparison


@pytest.fixture
def shown(capsys, monkeypatch):
    """A function that shows two reports beside each other at a width and returns the text."""

    def text(first, second, width: int = 120) -> str:
        monkeypatch.setenv("COLUMNS", str(width))
        console._console.cache_clear()
        show_comparison(compare(first, second), "before", "after")
        console._console.cache_clear()
        return capsys.readouterr().out

    return text


def cells(text: str, name: str) -> list[str]:
    return next(line.split(name)[1].split() for line in text.splitlines() if line.startswith(f"  {name} "))


def test_ratios_and_what_they_are_worth(shown, bench_report, bench_rows, bench_work):
    first, second, third = bench_rows(["resnet50"])[:3]
    changed = [
        replace(first, update=bench_work(50.0, peak_memory=206 * 10**6)),
        second,
        replace(third, update=bench_work(100.0, rounds=1)),
    ]
    text = shown(bench_report([first, second, third]), bench_report(changed))
    assert cells(text, "linear + sgd") == [
        "80.0", "160", "2.00", "320", "320", "~1.00", "412", "MB", "206", "MB", "0.50",
    ]  # fmt: skip
    assert cells(text, "linear + adamw")[:3] == ["80.0", "80.0", "~1.00"]
    assert cells(text, "linear + sam over sgd")[:3] == ["40.0", "80.0", "?2.00"]
    assert "~: no clear difference" in text and "?: timed fewer than 3 times" in text
    assert text.startswith("A  before\nB  after\n\nmachine, versions and settings are the same.\n")


def test_a_processor_that_had_other_work_is_told(shown, bench_report, bench_rows):
    (row, *_) = bench_rows(["resnet50"])
    late = replace(row, update=replace(row.update, timing=replace(row.update.timing, waited=0.5)))
    text = shown(bench_report([row]), bench_report([late]))
    assert "B: the processor had other work: 1 of 1 updates waited for it" in text and "A: the processor" not in text


def test_differences_come_first(shown, bench_report):
    second = bench_report(
        settings={"compile": True, "set": ["head.width=3", "head.depth=2"]},
        machine={"cuda": "13.0", "multiply_adds_per_second": 75e9},
    )
    lines = shown(bench_report(), second).splitlines()
    assert lines[3:8] == [
        "not the same in A and B:",
        "  cuda     none -> 13.0",
        "  compile  no -> yes",
        "  set      none -> head.width=3, head.depth=2",
        "rate of large matrix products, B/A: 1.50",
    ]


def test_at_80_columns_speeds_and_memory_are_two_tables(shown, bench_report, bench_work, bench_rows):
    text = shown(bench_report(), bench_report(), 80)
    assert text.count("head + optimizer") == 2
    assert all(len(line.rstrip()) <= 80 for line in text.splitlines() if line.startswith("  "))
    assert cells(text, "pim + sam over sgd") == ["20.0", "20.0", "~1.00", "160", "160", "~1.00"]


def test_what_failed_and_what_only_one_has(shown, bench_report, bench_rows):
    rows = bench_rows(["resnet50"])
    second = [replace(rows[0], update=None, failed="out of memory"), replace(rows[1], batch_size=16), *rows[2:]]
    lines = shown(bench_report(rows), bench_report(second)).splitlines()
    assert "B: failed: resnet50 + linear + sgd: out of memory" in lines
    assert "only in A: resnet50 + linear + adamw at 64 px, batches of 8" in lines
    assert "only in B: resnet50 + linear + adamw at 64 px, batches of 16" in lines


def test_of_many_that_only_one_has_some_are_named(shown, bench_report, bench_rows):
    rows = bench_rows(["resnet50", "swin_t"])
    lines = shown(bench_report(rows), bench_report(rows[:1])).splitlines()
    assert lines[-2:] == ["only in A: swin_t + linear + adamw at 64 px, batches of 8", "only in A: 7 more"]


def test_epochs_heat_maps_and_the_pipeline_have_tables_of_their_own(shown, bench_report, bench_rows, bench_work):
    rows = bench_rows(["resnet50"], explain={"gradcam": bench_work(20.0)}, epoch=bench_work(12e3, 768))
    faster = bench_rows(["resnet50"], explain={"gradcam": bench_work(10.0)}, epoch=bench_work(6e3, 768))
    feeds = [Feed("later epochs", 500.0, 768)], [Feed("later epochs", 1500.0, 768)]
    text = shown(bench_report(rows, feeds[0]), bench_report(faster, feeds[1]))
    assert text.count("gradcam") == 3 and cells(text, "pim: gradcam") == ["400", "800", "2.00"]
    epochs = text[text.index("  epochs ") :]
    assert cells(epochs, "cmal + sam over sgd") == ["64.0", "128", "2.00"]
    assert re.search(r"later epochs +500 +1500 +3\.00", text)


def test_the_pipeline_alone(shown, bench_report):
    report = bench_report((), [Feed("later epochs", 500.0, 768)])
    text = shown(report, report)
    assert "later epochs" in text and "B/A: above" not in text and "head + optimizer" not in text
