"""The rate at which a device multiplies large matrices: what the arithmetic of a network is set beside."""

from __future__ import annotations

import time

import torch

from fgvc_cli.benchmarking.timing import clock_of, time_rounds, warm_up
from fgvc_cli.devices import is_out_of_memory

SIDES = {"cpu": (512, 1024, 2048), "mps": (1024, 2048, 4096), "cuda": (2048, 4096, 8192, 16384)}
"""Sides of square matrices, by kind of device: which size is the quickest differs from device to device."""
SECONDS = 1.5
"""Time for all sizes; one that would not fit into what is left of it is not tried."""
ROUNDS = 10


def multiply_adds_per_second(device: torch.device, precision: str, seconds: float = SECONDS) -> float:
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
