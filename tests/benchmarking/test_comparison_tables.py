"""The tables of `fgvc bench compare`."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from fgvc_cli.benchmarking.comparing import compare
from fgvc_cli.benchmarking.results import Feed
from fgvc_cli.cli.bench_comparison import show_comparison


@pytest.fixture
def shown(printed):
    """Prints the comparison of two reports and returns the text."""
    return lambda first, second, columns=120: printed(
        lambda: show_comparison(compare(first, second), "before", "after"), columns
    )


def cells(text: str, name: str) -> list[str]:
    return next(line.split(name)[1].split() for line in text.splitlines() if line.startswith(f"  {name} "))


def test_ratios_and_their_significance(shown, make_report, make_rows, make_work):
    first, second, third = make_rows(["resnet50"])[:3]
    changed = [
        replace(first, update=make_work(50.0, peak_memory=206 * 10**6)),
        second,
        replace(third, update=make_work(100.0, rounds=1)),
    ]
    text = shown(make_report([first, second, third]), make_report(changed))
    assert cells(text, "linear + sgd") == [
        "80.0", "160", "2.00", "320", "320", "~1.00", "412", "MB", "206", "MB", "0.50",
    ]  # fmt: skip
    assert cells(text, "linear + adamw")[:3] == ["80.0", "80.0", "~1.00"]
    assert cells(text, "linear + sam over sgd")[:3] == ["40.0", "80.0", "?2.00"]
    assert "~: no clear difference" in text and "?: timed fewer than 3 times" in text
    assert text.startswith("A  before\nB  after\n\nmachine, versions and settings are the same\n")


def test_differences_come_first(shown, make_report):
    second = make_report(
        settings={"compile": True, "set": ["head.width=3", "head.depth=2"]},
        machine={"cuda": "13.0", "macs_per_second": 75e9},
    )
    lines = shown(make_report(), second).splitlines()
    assert lines[3:8] == [
        "differences between A and B:",
        "  cuda     none -> 13.0",
        "  compile  no -> yes",
        "  set      none -> head.width=3, head.depth=2",
        "rate of large matrix products, B/A: 1.50",
    ]


def test_rows_without_a_ratio(shown, make_report, make_rows):
    rows = make_rows(["resnet50"])
    second = [replace(rows[0], update=None, failed="out of memory"), replace(rows[1], batch_size=16), *rows[2:]]
    lines = shown(make_report(rows), make_report(second)).splitlines()
    assert "B: failed: resnet50 + linear + sgd: out of memory" in lines
    assert "only in A: resnet50 + linear + adamw at 64 px, batches of 8" in lines
    assert "only in B: resnet50 + linear + adamw at 64 px, batches of 16" in lines


def test_epochs_saliency_maps_and_pipeline(shown, make_report, make_rows, make_work):
    rows = make_rows(["resnet50"], explain={"gradcam": make_work(20.0)}, epoch=make_work(12e3, 768))
    faster = make_rows(["resnet50"], explain={"gradcam": make_work(10.0)}, epoch=make_work(6e3, 768))
    feeds = [Feed("later epochs", 500.0, 768)], [Feed("later epochs", 1500.0, 768)]
    text = shown(make_report(rows, feeds[0]), make_report(faster, feeds[1]))
    assert text.count("gradcam") == 3 and cells(text, "pim: gradcam") == ["400", "800", "2.00"]
    epochs = text[text.index("  epochs ") :]
    assert cells(epochs, "cmal + sam over sgd") == ["64.0", "128", "2.00"]
    assert re.search(r"later epochs +500 +1500 +3\.00", text)
