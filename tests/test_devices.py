"""Tests of devices."""

from __future__ import annotations

import platform

import pytest
import torch

from fgvc_cli.devices import pick_device


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc's allocator")
def test_a_process_that_computes_on_the_cpu_reuses_the_memory_of_large_tensors() -> None:
    """Freed tensors of 64 MiB stay with the process: allocating them again takes no page from the kernel."""
    pick_device("cpu")

    resource = pytest.importorskip("resource")

    def fill() -> None:
        for _ in range(3):
            torch.zeros(2**24).add_(1)

    fill()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    fill()
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    assert faults < 1000, f"{faults} page faults for 3 tensors of 16,384 pages"
