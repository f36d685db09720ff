"""Rounds, clocks, quartiles, the meter, and the rate of matrix products; all on fake clocks."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from fgvc_cli.benchmarking import timing
from fgvc_cli.benchmarking.timing import CudaClock, HostClock, Meter, Waiting, matmul_rate, summary, time_rounds

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


class FakeTime:
    """Time that passes only when work says so; the thread runs for a fraction of it."""

    def __init__(self, monkeypatch):
        self.now, self.running = 0.0, 1.0
        clocks = {"perf_counter": lambda: self.now, "thread_time": lambda: self.now * self.running}
        monkeypatch.setattr(timing, "time", SimpleNamespace(**clocks))

    def work(self, seconds, calls=None):
        """Return work that takes these seconds."""

        def run():
            self.now += seconds
            if calls is not None:
                calls.append(1)

        return run


@pytest.fixture
def fake_time(monkeypatch):
    return FakeTime(monkeypatch)


@pytest.mark.parametrize(
    ("seconds", "limit", "rounds"),
    [(0.25, {}, [250.0] * 4), (30.0, {}, [30_000.0]), (1e-6, {"max_rounds": 7}, [0.001] * 7)],
)
def test_rounds_within_the_time_limit(fake_time, seconds, limit, rounds):
    assert time_rounds(fake_time.work(seconds), 1.0, HostClock(CPU), **limit) == pytest.approx(rounds)


def test_median_and_quartiles():
    found = summary([10.0, 50.0, 20.0, 30.0, 40.0], warm_up=1.5)
    assert (found.low, found.median, found.high) == (20.0, 30.0, 40.0)
    assert (found.rounds, found.warm_up) == (5, 1.5)
    single = summary([12.0])
    assert (single.low, single.median, single.high, single.rounds) == (12.0, 12.0, 12.0, 1)


@pytest.mark.parametrize(("running", "waited"), [(1.0, 0.0), (0.4, 0.6), (1.001, 0.0)])
def test_waiting_is_the_time_that_the_thread_did_not_run(fake_time, running, waited):
    fake_time.running = running
    with Waiting() as waiting:
        fake_time.now += 5.0
    assert waiting.fraction == pytest.approx(waited)
    with Waiting() as nothing:
        pass
    assert nothing.fraction == 0


def test_warm_up_returns_its_seconds(fake_time):
    calls = []
    assert timing.warm_up(fake_time.work(0.5, calls), CPU, 3) == 1.5 and len(calls) == 3


class FakeEvents:
    """CUDA events in a queue of work that takes 10 ms each; counts the waits."""

    def __init__(self, monkeypatch, fake_time):
        self.waits, self.queued, self.time = 0, 0.0, fake_time
        monkeypatch.setattr(torch.cuda, "Event", lambda enable_timing: self.Event(self))
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)

    def work(self):
        self.queued += 0.010  # queued at once, done later

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


def test_cuda_waits_once_for_several_rounds(monkeypatch, fake_time):
    events = FakeEvents(monkeypatch, fake_time)
    assert time_rounds(events.work, 10.0, CudaClock(CUDA), max_rounds=11) == pytest.approx([10.0] * 11)
    assert events.waits == 3  # after 1, 6 and 11 rounds


def test_cuda_queues_no_more_rounds_than_the_time_allows(monkeypatch, fake_time):
    events = FakeEvents(monkeypatch, fake_time)
    assert len(time_rounds(events.work, 0.035, CudaClock(CUDA))) == 4  # 1, then 2 for 25 ms, then 1 for 5 ms


def test_the_host_clock_waits_for_the_device_at_each_mark(monkeypatch):
    waited = []
    monkeypatch.setattr(timing, "synchronize", waited.append)
    time_rounds(lambda: None, 1.0, HostClock(torch.device("mps")), max_rounds=2)
    assert waited == [torch.device("mps")] * 4  # two rounds, each with a mark before and after


@pytest.mark.parametrize(("compiled", "rounds"), [(False, 2), (True, 3)])
def test_slow_work_is_not_warmed_up_again(fake_time, compiled, rounds):
    """Counted and timed; compiled work also needs a round to compile."""
    calls = []
    Meter(CPU, 1.0).measure(fake_time.work(5.0, calls), 1, list, compiled=compiled)
    assert len(calls) == rounds


def test_the_meter_counts_warms_up_and_times(monkeypatch, fake_time):
    calls, layer, image = [], torch.nn.Linear(100, 10), torch.ones(2, 100)

    def work():
        calls.append(layer(image))
        fake_time.now += 0.020

    fake_time.running = 0.25
    found = Meter(CPU, 0.1, 1e6).measure(work, 2, list)
    assert len(calls) == 2 + found.timing.rounds  # counted, warmed up
    assert (found.timing.median, found.timing.waited) == (pytest.approx(20.0), pytest.approx(0.75))
    assert found.macs == 1000 and found.matrix_share == pytest.approx(2000 / 0.020 / 1e6)


def test_on_cuda_peak_memory_is_that_of_the_timed_rounds(monkeypatch):
    """No GPU needed: records the calls to torch.cuda."""
    calls = []
    event = SimpleNamespace(record=lambda stream: None, synchronize=lambda: calls.append("wait"))
    event.elapsed_time = lambda later: 5.0
    fakes = {
        "Event": lambda enable_timing: event,
        "current_stream": lambda device: None,
        "synchronize": lambda device: calls.append("wait"),
        "reset_peak_memory_stats": lambda device: calls.append("reset"),
        "max_memory_allocated": lambda device: calls.append("peak") or 12345,
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    work = Meter(CUDA, 0.0).measure(lambda: calls.append("work"), 4, list)
    counted, warmed, timed = ["work", "wait"], ["work"] * 3 + ["wait"], ["reset", "work", "wait", "peak"]
    assert calls == counted + warmed + timed
    assert (work.peak_memory, work.timing.median, work.matrix_share) == (12345, 5.0, None)
    assert work.timing.waited is None


def test_the_matmul_rate_is_that_of_the_best_round(monkeypatch):
    products = []
    monkeypatch.setattr(torch, "mm", lambda left, right, out: products.append(len(left)))
    monkeypatch.setattr(timing, "time_rounds", lambda work, seconds, clock, rounds: [400.0, 100.0, 200.0])
    monkeypatch.setattr(timing, "SIDES", {"cpu": (40, 20)})
    assert matmul_rate(CPU, "fp32") == 40**3 / 0.1
    assert products == [40, 20]  # the warm-up of each


def test_the_matmul_rate_is_that_of_the_precision(monkeypatch):
    types = []
    monkeypatch.setattr(timing, "_matmul_rate", lambda device, dtype, side, end: types.append(dtype) or 1e15)
    matmul_rate(CPU, "bf16")
    matmul_rate(CPU, "fp32")
    assert types == [torch.bfloat16] * 3 + [torch.float32] * 3


def test_matrices_that_would_take_too_long_are_skipped(monkeypatch):
    sides = []
    monkeypatch.setattr(timing, "_matmul_rate", lambda device, dtype, side, end: sides.append(side) or 1e9)
    assert matmul_rate(CPU, "fp32", seconds=1.5) == 1e9
    assert sides == [512]  # 1024 would take 2 s


def test_matrices_that_do_not_fit_are_skipped(monkeypatch):
    def rate(device, dtype, side, end):
        if side == 2048:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return {512: 3e14, 1024: 2e14}[side]

    monkeypatch.setattr(timing, "_matmul_rate", rate)
    assert matmul_rate(CPU, "fp32") == 3e14


@pytest.mark.gpu
def test_cuda_events_and_the_matmul_rate():
    matrix = torch.randn(1024, 1024, device="cuda")
    rounds = time_rounds(lambda: matrix @ matrix, 1.0, CudaClock(CUDA), max_rounds=10)
    assert len(rounds) == 10 and min(rounds) > 0
    assert matmul_rate(CUDA, "bf16") > 0
