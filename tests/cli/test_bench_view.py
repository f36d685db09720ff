"""How a benchmark tells how far it is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fgvc_cli.cli import console
from fgvc_cli.cli import console as progress_module
from fgvc_cli.cli.bench import BenchView


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 0.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(progress_module, "time", clock)
    return clock


def test_rows_are_counted_and_failures_told_at_once(capsys, clock, bench_rows):
    first, second, *_, failed = bench_rows(["vit_b16"])
    with BenchView() as view:
        view.planned([row.name for row in (first, second, failed)])
        view.started("input pipeline")
        for row in (first, failed, second):
            view.started(row.name)
            clock.now += 30
            view.finished(row)
    streams = capsys.readouterr()
    assert streams.out == ""
    assert streams.err.splitlines() == [
        "3 combinations; Ctrl-C shows and keeps what is measured until then",
        "bench: 1 of 3 combinations, 30 s each, 1:00 left, vit_b16 + linear + sgd: 80.0 images/s",
        "bench: 2 of 3 combinations, 30 s each, 0:30 left, vit_b16 + cmal + sam: failed",
        "failed: vit_b16 + cmal + sam over sgd: cmal needs three maps of different stride",
        "bench: 3 of 3 combinations, 30 s each, 0:00 left, vit_b16 + linear + adamw: 80.0 images/s",
    ]


def test_the_pipeline_may_take_long_before_the_first_row(capsys, clock, bench_rows):
    (row, *_) = bench_rows(["vit_b16"])
    with BenchView() as view:
        view.planned([row.name])
        view.started("input pipeline")
        clock.now += 60
        view.started(row.name)
    assert capsys.readouterr().err == "bench: 0 of 1 combinations, vit_b16 + linear + sgd\n"


def test_under_quiet_there_is_nothing(capsys, clock, bench_rows):
    (row, *_) = bench_rows(["vit_b16"])
    with console.active(quiet=True), BenchView() as view:
        view.planned(["a", "b"])
        clock.now += 60
        view.finished(replace(row, failed="a reason"))
    assert capsys.readouterr().err == ""
