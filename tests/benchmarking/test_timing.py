"""Rounds, clocks and quartiles."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
import torch

from fgvc_cli.benchmarking import timing
from fgvc_cli.benchmarking.timing import (
    CudaClock,
    HostClock,
    Waiting,
    clock_of,
    summary,
    time_rounds,
    warm_up,
)

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


class FakeTime:
    """Time that passes only where work says so."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: self.now))

    def work(self, *seconds):
        """Return work that takes so long, one length after the other; the last is repeated."""
        lengths = list(seconds)

        def do():
            self.now += lengths.pop(0) if len(lengths) > 1 else lengths[0]

        return do


@pytest.fixture
def fake_time(monkeypatch):
    return FakeTime(monkeypatch)


def test_rounds_go_on_until_the_time_is_over(fake_time):
    assert time_rounds(fake_time.work(0.25), 1.0, HostClock(CPU)) == [250.0] * 4


def test_one_round_is_timed_however_long_it_takes(fake_time):
    assert time_rounds(fake_time.work(30.0), 1.0, HostClock(CPU)) == [30_000.0]


def test_quick_work_is_not_timed_for_ever(fake_time):
    assert len(time_rounds(fake_time.work(1e-6), 1.0, HostClock(CPU))) == timing.MOST_ROUNDS
    assert len(time_rounds(fake_time.work(1e-6), 1.0, HostClock(CPU), most=7)) == 7


def test_median_and_quartiles_are_those_of_the_rounds():
    found = summary([10.0, 50.0, 20.0, 30.0, 40.0], warm_up=1.5)
    assert (found.low, found.median, found.high) == (20.0, 30.0, 40.0)
    assert (found.rounds, found.warm_up) == (5, 1.5)
    alone = summary([12.0])
    assert (alone.low, alone.median, alone.high, alone.rounds) == (12.0, 12.0, 12.0, 1)


class Loaded:
    """A processor that gives this thread so much of the time."""

    def __init__(self, monkeypatch, share):
        self.wall, self.share = 0.0, share
        clocks = {"perf_counter": lambda: self.wall, "thread_time": lambda: self.wall * self.share}
        monkeypatch.setattr(timing, "time", SimpleNamespace(**clocks))


@pytest.mark.parametrize(("share", "waited"), [(1.0, 0.0), (0.4, 0.6), (1.001, 0.0)])
def test_what_a_thread_did_not_run_of_its_time_it_was_kept_waiting(monkeypatch, share, waited):
    processor = Loaded(monkeypatch, share)
    with Waiting() as waiting:
        processor.wall += 5.0
    assert waiting.share == pytest.approx(waited)


def test_real_work_is_hardly_kept_waiting_beside_sleep():
    with Waiting() as asleep:
        time.sleep(0.05)
    assert asleep.share > 0.9
    with Waiting() as nothing:
        pass
    assert 0 <= nothing.share <= 1


def test_real_time_is_told_in_milliseconds():
    spent = time_rounds(lambda: time.sleep(0.02), 0.05, HostClock(CPU))
    assert 2 <= len(spent) <= 3
    assert all(20 <= milliseconds < 500 for milliseconds in spent)


def test_warming_up_tells_its_seconds():
    calls = []
    assert warm_up(lambda: (calls.append(1), time.sleep(0.01)), CPU, 3) >= 0.03
    assert len(calls) == 3


class FakeEvents:
    """CUDA events in a queue whose work takes 10 ms each; waiting is counted."""

    def __init__(self, monkeypatch, fake_time):
        self.waits, self.queued, self.time = 0, 0.0, fake_time
        monkeypatch.setattr(torch.cuda, "Event", lambda enable_timing: self.Event(self))
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)

    def work(self):
        self.queued += 0.010  # handed over at once, done later

    class Event:
        def __init__(self, events):
            self.events = events

        def record(self, stream):
            self.at = self.events.queued

        def synchronize(self):
            self.events.waits += 1
            self.events.time.now = max(self.events.time.now, self.at)

        def elapsed_time(self, later):
            return 1000 * (later.at - self.at)


def test_on_a_gpu_events_tell_the_time_and_a_handful_of_rounds_is_waited_for_at_once(monkeypatch, fake_time):
    events = FakeEvents(monkeypatch, fake_time)
    spent = time_rounds(events.work, 10.0, CudaClock(CUDA), most=11)
    assert spent == pytest.approx([10.0] * 11)
    assert events.waits == 3  # after 1, 6 and 11 rounds


def test_on_a_gpu_no_more_rounds_are_handed_over_than_there_is_time_for(monkeypatch, fake_time):
    events = FakeEvents(monkeypatch, fake_time)
    assert len(time_rounds(events.work, 0.035, CudaClock(CUDA))) == 4  # 1, then 2 for 25 ms, then 1 for 5 ms


def test_the_hosts_clock_waits_for_the_device_at_each_mark(monkeypatch):
    waited = []
    monkeypatch.setattr(timing, "synchronize", waited.append)
    time_rounds(lambda: None, 1.0, HostClock(torch.device("mps")), most=2)
    assert waited == [torch.device("mps")] * 4  # two rounds, each with a mark before and after


def test_each_device_has_its_clock():
    assert isinstance(clock_of(CUDA), CudaClock)
    assert isinstance(clock_of(CPU), HostClock) and clock_of(CPU).handful == 1


@pytest.mark.gpu
def test_events_agree_with_the_wall_clock():
    matrix = torch.randn(4096, 4096, device="cuda")

    def work():
        for _ in range(20):
            matrix @ matrix

    warm_up(work, CUDA, 3)
    torch.cuda.synchronize()
    start = time.perf_counter()
    spent = time_rounds(work, 1.0, clock_of(CUDA), most=10)
    wall = 1000 * (time.perf_counter() - start)
    assert len(spent) == 10
    assert 0.8 * wall < sum(spent) <= 1.01 * wall
