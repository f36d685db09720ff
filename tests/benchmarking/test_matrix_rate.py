"""The measured rate of large matrix products."""

from __future__ import annotations

import time

import pytest
import torch

from fgvc_cli.benchmarking import macs
from fgvc_cli.benchmarking.timing import matmul_rate

CPU = torch.device("cpu")


def test_the_rate_is_measured_in_the_time_there_is():
    start = time.perf_counter()
    rate = matmul_rate(CPU, "fp32", seconds=0.3)
    assert time.perf_counter() - start < 3
    left, right = torch.randn(512, 512), torch.randn(512, 512)
    left @ right
    start = time.perf_counter()
    left @ right
    once = 512**3 / (time.perf_counter() - start)
    assert once / 20 < rate < once * 20  # the same order as a product timed by hand


def test_the_rate_is_that_of_the_best_round_after_one_that_does_not_count(monkeypatch):
    """And counts a multiply-add as one."""
    products = []
    multiply = torch.mm
    monkeypatch.setattr(
        torch, "mm", lambda left, right, out: products.append(len(left)) or multiply(left, right, out=out)
    )
    monkeypatch.setattr(macs, "time_rounds", lambda work, seconds, clock, rounds: [400.0, 100.0, 200.0])
    monkeypatch.setattr(macs, "SIDES", {"cpu": (40, 20)})
    assert matmul_rate(CPU, "fp32") == 40**3 / 0.1
    assert products == [40, 20]


def test_matrices_are_of_the_precision_asked_for(monkeypatch):
    seen = []
    monkeypatch.setattr(macs, "_rate", lambda device, dtype, side, end: seen.append(dtype) or 1e15)
    matmul_rate(CPU, "bf16")
    matmul_rate(CPU, "fp32")
    assert seen == [torch.bfloat16] * 3 + [torch.float32] * 3


def test_a_size_that_would_take_too_long_is_not_tried(monkeypatch):
    sides = []
    monkeypatch.setattr(macs, "_rate", lambda device, dtype, side, end: sides.append(side) or 1e9)
    assert matmul_rate(CPU, "fp32", seconds=1.5) == 1e9
    assert sides == [512]  # 1024 would take 2 s


def test_a_size_that_does_not_fit_ends_it_and_the_best_stays(monkeypatch):
    def rate(device, dtype, side, end):
        if side == 2048:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return {512: 3e14, 1024: 2e14}[side]

    monkeypatch.setattr(macs, "_rate", rate)
    assert matmul_rate(CPU, "fp32") == 3e14


@pytest.mark.gpu
def test_a_gpu_is_quicker_in_bf16():
    device = torch.device("cuda")
    assert matmul_rate(device, "bf16") > 1.5 * matmul_rate(device, "fp32")
