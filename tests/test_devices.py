"""Tests of devices."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, torch
from fgvc_cli.devices import pick_device

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(3):
        torch.zeros(2**24).add_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
before = faults()
pick_device("cpu")
faults()
print(before, faults())
"""
"""Prints the page faults of three tensors of 64 MiB, 16,384 pages each: by default, and with the CPU picked."""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc's allocator")
@pytest.mark.slow
def test_a_process_that_computes_on_the_cpu_reuses_freed_memory() -> None:
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert after < 1000 and after < before / 10, done.stdout
