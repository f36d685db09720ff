"""Time operations on a device: warm-up, rounds, median and quartiles; the device's rate of matrix products."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from fgvc_cli.benchmarking.macs import MacCounter
from fgvc_cli.benchmarking.memory import PeakMemory
from fgvc_cli.benchmarking.results import Timing, Work
from fgvc_cli.devices import is_out_of_memory

MAX_ROUNDS = 50


class HostClock:
    """The host's clock; each mark waits for the device.

    Attributes:
        rounds_per_wait: operations queued between two waits for the device.
        warm_ups: operations before times are steady.
    """

    rounds_per_wait, warm_ups = 1, 1

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def mark(self) -> Any:
        """Mark the present moment in the device's queue."""
        synchronize(self.device)
        return time.perf_counter()

    def between(self, marks: Sequence[Any]) -> list[float]:
        """Wait for the device and return the milliseconds from each mark to the next."""
        return [1000 * (after - before) for before, after in pairwise(marks)]


class CudaClock(HostClock):
    """CUDA events. A wait after each round would be measured with it, so several rounds are queued between waits."""

    rounds_per_wait = 5
    warm_ups = 3
    """In the first round libraries try kernels, in the next the allocator still requests memory."""

    def mark(self) -> torch.cuda.Event:
        """Record an event in the current stream."""
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        return event

    def between(self, marks: Sequence[torch.cuda.Event]) -> list[float]:
        """Wait for the last event and return the milliseconds from each to the next."""
        marks[-1].synchronize()
        return [float(before.elapsed_time(after)) for before, after in pairwise(marks)]


def clock_of(device: torch.device) -> HostClock:
    """Return the clock for a device."""
    return CudaClock(device) if device.type == "cuda" else HostClock(device)


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished all queued work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def warm_up(work: Callable[[], object], device: torch.device, rounds: int) -> float:
    """Run the work a number of times and return the seconds that took."""
    start = time.perf_counter()
    for _ in range(rounds):
        work()
    synchronize(device)
    return time.perf_counter() - start


def time_rounds(
    work: Callable[[], object], seconds: float, clock: HostClock, max_rounds: int = MAX_ROUNDS
) -> list[float]:
    """Return the milliseconds of each round of work: at least one, and as many more as start within `seconds`."""
    end = time.perf_counter() + seconds
    rounds: list[float] = []
    while not rounds or (len(rounds) < max_rounds and time.perf_counter() < end):
        ahead = 1
        if rounds:
            in_time = int(1000 * (end - time.perf_counter()) / max(rounds[-1], 1e-3))
            ahead = max(1, min(clock.rounds_per_wait, max_rounds - len(rounds), in_time))
        marks = [clock.mark()]
        for _ in range(ahead):
            work()
            marks.append(clock.mark())
        rounds += clock.between(marks)
    return rounds


class Waiting:
    """Measures the fraction of the time within the block in which this thread, busy throughout, was not running.

    On a CPU, other programs ran in this time, or a quota stopped this one. Quartiles do not show it: a constant load
    slows all rounds equally.
    """

    fraction = 0.0

    def __enter__(self) -> Waiting:
        self._start = time.perf_counter(), time.thread_time()
        return self

    def __exit__(self, *_: object) -> None:
        wall, running = time.perf_counter() - self._start[0], time.thread_time() - self._start[1]
        self.fraction = max(0.0, 1 - running / wall) if wall > 0 else 0.0


def summary(milliseconds: Sequence[float], warm_up: float = 0.0, waited: float | None = None) -> Timing:
    """Return median and quartiles of the rounds; `warm_up` and `waited` as in `Timing`."""
    if len(milliseconds) == 1:
        low = median = high = milliseconds[0]
    else:
        low, median, high = statistics.quantiles(milliseconds, n=4, method="inclusive")
    return Timing(median, low, high, len(milliseconds), warm_up, waited)


@dataclass(frozen=True)
class Meter:
    """Measures operations on a device.

    Attributes:
        device: that computes.
        seconds: time limit for the rounds of one operation.
        macs_per_second: rate of large matrix products; None: unknown.
    """

    device: torch.device
    seconds: float
    macs_per_second: float | None = None

    def measure(
        self, work: Callable[[], object], images: int, alive: Callable[[], Iterable[Tensor]], compiled: bool = False
    ) -> Work:
        """Run the work once uncompiled to count MACs and memory, then a few times to warm up, then in timed rounds.

        Peak memory on CUDA is that of the timed rounds, from the allocator's statistics; elsewhere that of the counted
        round.

        Args:
            work: one round.
            images: per round.
            alive: returns the tensors that exist before and after each round.
            compiled: whether the work compiles during warm-up, which the counted round has not done.
        """
        is_cuda = self.device.type == "cuda"
        macs, peak, counted_seconds = self._count(work, alive())
        clock = clock_of(self.device)
        is_slow = counted_seconds > self.seconds and not is_cuda and not compiled
        warm = counted_seconds if is_slow else warm_up(work, self.device, clock.warm_ups)
        if is_cuda:
            torch.cuda.reset_peak_memory_stats(self.device)
        with Waiting() as waiting:
            rounds = time_rounds(work, self.seconds, clock)
        if is_cuda:
            peak = torch.cuda.max_memory_allocated(self.device)
        waited = round(waiting.fraction, 3) if self.device.type == "cpu" else None
        timing = summary(rounds, round(warm, 3), waited)
        share = 1000 * macs / timing.median / self.macs_per_second if self.macs_per_second else None
        return Work(timing, images, round(macs / images), peak, share)

    def _count(self, work: Callable[[], object], alive: Iterable[Tensor]) -> tuple[int, int | None, float]:
        """Run the work once; return its MACs, its peak memory in bytes (None on CUDA) and the seconds."""
        start, memory = time.perf_counter(), None
        with torch.compiler.set_stance("force_eager"):
            if self.device.type == "cuda":
                with MacCounter() as counter:
                    work()
            else:
                with PeakMemory(self.device, alive) as memory, MacCounter() as counter:
                    work()
        synchronize(self.device)
        return counter.total, None if memory is None else memory.peak, time.perf_counter() - start


SIDES = {"cpu": (512, 1024, 2048), "mps": (1024, 2048, 4096), "cuda": (2048, 4096, 8192, 16384)}
"""Sides of square matrices by device type; which size is fastest differs from device to device."""


def matmul_rate(device: torch.device, precision: str, seconds: float = 1.5) -> float:
    """Return the MACs per second of large matrix products: the best of a few sizes and rounds.

    The matrices have the type that a forward pass in this precision multiplies. With "fp32" a GPU multiplies matrices
    in full precision but, by torch's default, convolves in TF32, which can be faster than this rate.

    Args:
        device: that computes.
        precision: "fp32" or "bf16".
        seconds: approximate time limit for all sizes.
    """
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    end = time.perf_counter() + seconds
    best = 0.0
    for side in SIDES.get(device.type, SIDES["cpu"]):
        expected = 2 * side**3 / best if best else 0.0  # warm-up and one round
        if time.perf_counter() + expected > end:
            break
        try:
            best = max(best, _matmul_rate(device, dtype, side, end))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or not best:
                raise
            break
    return best


def _matmul_rate(device: torch.device, dtype: torch.dtype, side: int, end: float) -> float:
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    product = torch.empty_like(left)

    def multiply() -> None:
        torch.mm(left, right, out=product)

    warm_up(multiply, device, 1)
    rounds = time_rounds(multiply, max(0.0, end - time.perf_counter()) / 3, clock_of(device), 10)
    return 1000 * side**3 / min(rounds)
