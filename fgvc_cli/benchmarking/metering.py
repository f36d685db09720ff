"""One piece of work, measured in all ways: how long, how many multiply-adds, how much memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import overload

import torch
from torch import Tensor

from fgvc_cli.benchmarking.counting import MultiplyAdds
from fgvc_cli.benchmarking.memory import DevicePeak, PeakMemory
from fgvc_cli.benchmarking.results import Work
from fgvc_cli.benchmarking.timing import Waiting, clock_of, summary, synchronize, time_rounds, warm_up


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
                with MultiplyAdds() as counted:
                    work()
            else:
                with PeakMemory(self.device, alive) as memory, MultiplyAdds() as counted:
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
