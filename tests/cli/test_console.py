"""Output: results to standard output, everything else to standard error, plain without a terminal."""

import json
import math
import os
import pty
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from fgvc_cli.cli import console
from fgvc_cli.formatting import duration_text, pace_text


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test advances."""

    class Clock:
        now = 0.0

        def monotonic(self) -> float:
            return self.now

    clock = Clock()
    monkeypatch.setattr(console, "time", clock)
    return clock


def test_notes_and_warnings_go_to_standard_error(capsys):
    console.note("a [note]")
    console.warn("beware")
    with console.active(quiet=True):
        console.note("suppressed")
        console.warn("still here")
    streams = capsys.readouterr()
    assert streams.out == ""
    assert streams.err == "a [note]\nwarning: beware\nwarning: still here\n"


@dataclass(frozen=True)
class Score:
    name: str
    top1: float


def test_json_is_one_document_of_plain_values(capsys):
    class Tensor:
        def tolist(self) -> list[float]:
            return [1.0, math.inf]

    console.print_json({"path": Path("a/b"), "t": (1, 2), "bad": math.nan, 3: Score("é", 0.5), "x": Tensor()})
    streams = capsys.readouterr()
    assert json.loads(streams.out) == {
        "path": "a/b",
        "t": [1, 2],
        "bad": None,
        "3": {"name": "é", "top1": 0.5},
        "x": [1.0, None],
    }
    assert streams.err == ""


def test_no_colors_and_no_markup_without_a_terminal(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    console.out().print("[bold]plain[/bold]", style="red")
    assert capsys.readouterr().out == "[bold]plain[/bold]\n"


def test_columns_sets_the_width(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    wide = console.out().width
    monkeypatch.setenv("COLUMNS", "60")
    assert console.out().width == 60
    monkeypatch.delenv("COLUMNS")
    assert console.out().width == wide > 80


def test_short_work_prints_no_line(capsys, clock):
    with console.progress("test", 100) as bar:
        for _ in range(100):
            clock.now += 0.09
            bar.advance()
    assert capsys.readouterr().err == ""


def test_long_work_prints_a_line_every_20_seconds(capsys, clock):
    with console.progress("epoch 1", 600) as bar:
        for _ in range(600):
            clock.now += 0.125
            bar.advance(1, "loss 0.5")
    streams = capsys.readouterr()
    assert streams.out == ""
    lines = streams.err.splitlines()
    assert len(lines) == 4
    assert lines[0] == "epoch 1: 80 of 600 images, 8.0 images/s, 1:05 left, loss 0.5"
    assert lines[1].startswith("epoch 1: 240 of 600 images")


def test_work_of_unknown_size_and_quiet(capsys, clock):
    with console.progress("reading", None, unit="files") as bar:
        clock.now += 12
        bar.advance(6)
    assert capsys.readouterr().err == "reading: 6 files, 0.50 files/s\n"
    with console.active(quiet=True), console.progress("reading", 10) as bar:
        clock.now += 100
        bar.advance(9)
    assert capsys.readouterr().err == ""


def test_rates_and_durations():
    rates = {8.14: "8.1 rows/s", 1250.4: "1250 rows/s", 0.2: "0.20 rows/s", 0.04: "25 s each"}
    assert {rate: pace_text(rate, "rows") for rate in rates} == rates
    assert [duration_text(seconds) for seconds in (-1, 7.4, 750, 11100)] == ["0:00", "0:07", "12:30", "3:05:00"]


def on_terminal(program: str, **variables: str) -> str:
    """Run a program whose standard streams are a terminal, and return its output."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", **variables}
    with subprocess.Popen([sys.executable, "-c", program], stdout=theirs, stderr=theirs, env=environment) as running:
        os.close(theirs)
        written = b""
        while True:
            try:
                chunk = os.read(ours, 65536)
            except OSError:  # the other end is closed
                break
            if not chunk:
                break
            written += chunk
        running.wait(timeout=30)
    os.close(ours)
    return written.decode()


BAR = (
    "import time\nfrom fgvc_cli.cli import console\nwith console.progress('train', 40) as bar:\n"
    "    for _ in range(40):\n        time.sleep(0.01); bar.advance(1, 'loss 0.5')\n"
    "    console.note('a line amid the bar')\n"
    "    with console.progress('inner', None) as other: other.advance(); time.sleep(0.2)\n"
    "console.warn('done')"
)


def test_a_terminal_shows_a_bar_with_rate_and_time():
    written = on_terminal(BAR)
    for expected in ("train", "40/40", "images/s", "loss 0.5", "inner", "a line amid the bar", "━", "\x1b["):
        assert expected in written
    assert written.rstrip().endswith("done")


def test_a_narrow_terminal_truncates_the_text_of_the_bar():
    program = (
        "import time\nfrom fgvc_cli.cli import console\n"
        "with console.progress('bench', 45, 'combinations') as bar:\n"
        "    time.sleep(0.2); bar.advance(4, 'efficientnet_b5 + linear + sam: 0.747 images/s'); time.sleep(0.2)"
    )
    written = on_terminal(program, COLUMNS="60")
    assert "4/45" in written and " left" in written and "eff" in written and "…" in written
    assert written.count("\x1b[1A") <= 1  # up a line: only to take the bar away


@pytest.mark.parametrize(("variables", "colored"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_colors_only_where_they_are_wanted(variables, colored):
    written = on_terminal("from fgvc_cli.cli import console\nconsole.warn('done')", **variables)
    assert ("\x1b[33m" in written) is colored and "warning: " in written


NASTY = "\x1b[31mjay\x1b[0m\nfgvc: error: forged\u202eyaj"


def test_names_cannot_move_the_cursor_or_forge_a_line(capsys):
    console.note(f"class {NASTY}")
    console.print_facts({"classes": NASTY})
    table = console.table("image", "class")
    table.add_row("a.jpg", NASTY)
    console.out().print(table)
    console.out().print(f"read {NASTY}")
    streams = capsys.readouterr()
    assert not set("\x1b\u202e") & set(streams.out + streams.err)
    assert "\\x1b[31mjay" in streams.out and "\\x1b[31mjay" in streams.err
    assert streams.err.count("\n") == 1
    assert not any(line.startswith("fgvc: error") for line in streams.err.splitlines())


def test_indented_lines_and_other_scripts_stay(capsys):
    console.warn("two ways:\n  Grünfink, アオゲラ\n  👍")
    assert capsys.readouterr().err == "warning: two ways:\n  Grünfink, アオゲラ\n  👍\n"
