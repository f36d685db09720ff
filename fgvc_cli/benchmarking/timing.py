"""Time work on a device: warm-up, rounds, median and quartiles."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Protocol, overload

import torch
from torch import Tensor

from fgvc_cli.benchmarking.macs import MacCounter
from fgvc_cli.benchmarking.memory import DevicePeak, PeakMemory
from fgvc_cli.benchmarking.results import Timing, Work
from fgvc_cli.devices import is_out_of_memory

MOST_ROUNDS = 50
HANDFUL = 5
"""Rounds that are handed to a GPU before it is waited for: a wait after each would be measured with it."""
GPU_WARM_UPS = 3
"""Rounds before the clock counts: in the first a GPU's libraries try kernels, in the next memory is still asked for."""


class Clock(Protocol):
    """Takes marks between pieces of work, and tells the time between them.

    Attributes:
        handful: pieces of work between two looks at the marks.
        warm_ups: pieces of work after which they all take alike.
    """

    handful: int
    warm_ups: int

    def mark(self) -> Any:
        """Mark this moment in the device's queue of work."""

    def between(self, marks: Sequence[Any]) -> list[float]:
        """Wait for the device, and return the milliseconds from each mark to the next."""


class HostClock:
    """The processor's clock, for work that is done when its call returns; a device is waited for at each mark."""

    handful, warm_ups = 1, 1

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def mark(self) -> float:
        """Wait for the device, and return the seconds."""
        synchronize(self.device)
        return time.perf_counter()

    def between(self, marks: Sequence[float]) -> list[float]:
        """Return the milliseconds from each mark to the next."""
        return [1000 * (after - before) for before, after in pairwise(marks)]


class CudaClock:
    """A GPU's own clock: marks are events in its queue, and nothing waits for them until they are looked at."""

    handful, warm_ups = HANDFUL, GPU_WARM_UPS

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def mark(self) -> torch.cuda.Event:
        """Put an event into the queue."""
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        return event

    def between(self, marks: Sequence[torch.cuda.Event]) -> list[float]:
        """Wait for the last event, and return the milliseconds from each to the next."""
        marks[-1].synchronize()
        return [float(before.elapsed_time(after)) for before, after in pairwise(marks)]


def clock_of(device: torch.device) -> Clock:
    """Return the clock that tells how long work takes on a device."""
    return CudaClock(device) if device.type == "cuda" else HostClock(device)


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def warm_up(work: Callable[[], object], device: torch.device, rounds: int) -> float:
    """Do the work a few times and return the seconds that it took: compiling and choosing kernels are among them."""
    start = time.perf_counter()
    for _ in range(rounds):
        work()
    synchronize(device)
    return time.perf_counter() - start


def time_rounds(work: Callable[[], object], seconds: float, clock: Clock, most: int = MOST_ROUNDS) -> list[float]:
    """Return the milliseconds of each round: at least one, and as many more as begin before the time is over.

    Args:
        work: one round.
        seconds: time there is.
        clock: takes the time.
        most: rounds, at most.
    """
    end = time.perf_counter() + seconds
    spent: list[float] = []
    while not spent or (len(spent) < most and time.perf_counter() < end):
        marks = [clock.mark()]
        for _ in range(_rounds_ahead(spent, end - time.perf_counter(), clock.handful, most)):
            work()
            marks.append(clock.mark())
        spent += clock.between(marks)
    return spent


class Waiting:
    """A block in which this thread has work all the time; what it did not run of that, it was kept waiting.

    On a CPU that is what other programs had of the processor, or what a limit on this one took. Quartiles do not tell:
    a load that stays the same slows all rounds alike.

    Attributes:
        share: of the time that the block took.
    """

    share = 0.0

    def __enter__(self) -> Waiting:
        self._wall, self._own = time.perf_counter(), time.thread_time()
        return self

    def __exit__(self, *_: object) -> None:
        spent, run = time.perf_counter() - self._wall, time.thread_time() - self._own
        self.share = max(0.0, 1 - run / spent) if spent > 0 else 0.0


def summary(milliseconds: Sequence[float], warm_up: float = 0.0, waited: float | None = None) -> Timing:
    """Return median and quartiles of the rounds; `warm_up`: seconds that went before; `waited`: see `Waiting`."""
    if len(milliseconds) == 1:
        low = median = high = milliseconds[0]
    else:
        low, median, high = statistics.quantiles(milliseconds, n=4, method="inclusive")
    return Timing(median, low, high, len(milliseconds), warm_up, waited)


def _rounds_ahead(spent: Sequence[float], left: float, handful: int, most: int) -> int:
    """Return how many rounds to do before looking at the clock: one at first, and later no more than there is time."""
    if not spent:
        return 1
    in_time = int(1000 * left / max(spent[-1], 1e-3))
    return max(1, min(handful, most - len(spent), in_time))


@dataclass(frozen=True)
class Meter:
    """Measures work on a device.

    Attributes:
        device: where the work is done.
        seconds: for the rounds of each piece of work.
        matrix_rate: multiply-adds a second of large matrix products, or None if that is not known.
    """

    device: torch.device
    seconds: float
    matrix_rate: float | None = None

    def measure(
        self, work: Callable[[], object], images: int, alive: Callable[[], Iterable[Tensor]], compiled: bool = False
    ) -> Work:
        """Do the work once to count it, uncompiled; a few times to warm up; then round after round.

        On a CUDA GPU the memory is that of the timed rounds, by its allocator's statistics; elsewhere it is that of
        the counted one.

        Args:
            work: what is measured.
            images: that one round of it takes.
            alive: gives the tensors that are there before and stay.
            compiled: whether the work warms up by being compiled, which the counted one has not seen.
        """
        adds, peak, counted_seconds = self._count(work, alive())
        clock = clock_of(self.device)
        is_slow = counted_seconds > self.seconds and self.device.type != "cuda" and not compiled
        warmed = counted_seconds if is_slow else warm_up(work, self.device, clock.warm_ups)
        device_peak = DevicePeak(self.device)
        device_peak.begin()
        with Waiting() as waiting:
            spent = time_rounds(work, self.seconds, clock)
        waited = round(waiting.share, 3) if self.device.type == "cpu" else None
        timing = summary(spent, round(warmed, 3), waited)
        share = None if not self.matrix_rate else 1000 * adds / timing.median / self.matrix_rate
        peak_here = device_peak.end()
        return Work(timing, images, round(adds / images), peak if peak_here is None else peak_here, share)

    def _count(self, work: Callable[[], object], alive: Iterable[Tensor]) -> tuple[int, int | None, float]:
        """Do the work once; return its multiply-adds, the peak of memory (None: see the device's), and the seconds."""
        start = time.perf_counter()
        with torch.compiler.set_stance("force_eager"):
            if self.device.type == "cuda":
                memory = None
                with MacCounter() as counted:
                    work()
            else:
                with PeakMemory(self.device, alive) as memory, MacCounter() as counted:
                    work()
        synchronize(self.device)
        return counted.total, None if memory is None else memory.peak, time.perf_counter() - start


@overload
def beside(work: Work, baseline: Work | None) -> Work: ...
@overload
def beside(work: None, baseline: Work | None) -> None: ...
def beside(work: Work | None, baseline: Work | None) -> Work | None:
    """Return work with its speed beside that of the same work of the baseline, plain and for its multiply-adds."""
    if work is None or baseline is None:
        return work
    ratio = work.images_per_second / baseline.images_per_second
    over = None
    if work.multiply_adds and baseline.multiply_adds:
        over = baseline.multiply_adds / work.multiply_adds / ratio
    return replace(work, ratio=ratio, over_arithmetic=over)


SIDES = {"cpu": (512, 1024, 2048), "mps": (1024, 2048, 4096), "cuda": (2048, 4096, 8192, 16384)}
"""Sides of square matrices, by kind of device: which size is the quickest differs from device to device."""


SECONDS = 1.5
"""Time for all sizes; one that would not fit into what is left of it is not tried."""


ROUNDS = 10


def matmul_rate(device: torch.device, precision: str, seconds: float = SECONDS) -> float:
    """Return the best rate of a few sizes and rounds.

    Matrices are of the type that a forward pass in that precision multiplies. With "fp32" a GPU multiplies matrices
    in full precision, but convolutions in TF32 where torch has it so (its default), which can be quicker than this.

    Args:
        device: multiplies.
        precision: "fp32" or "bf16".
        seconds: time to measure in, roughly.
    """
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    end = time.perf_counter() + seconds
    best = 0.0
    for side in SIDES.get(device.type, SIDES["cpu"]):
        expected = 2 * side**3 / best if best else 0.0  # to warm up, and one round
        if time.perf_counter() + expected > end:
            break
        try:
            best = max(best, _rate(device, dtype, side, end))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or not best:
                raise
            break
    return best


def _rate(device: torch.device, dtype: torch.dtype, side: int, end: float) -> float:
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    product = torch.empty_like(left)

    def multiply() -> None:
        torch.mm(left, right, out=product)

    warm_up(multiply, device, 1)
    spent = time_rounds(multiply, max(0.0, end - time.perf_counter()) / 3, clock_of(device), ROUNDS)
    return 1000 * side**3 / min(spent)
