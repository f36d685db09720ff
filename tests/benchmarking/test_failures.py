"""Reasons in one line."""

from __future__ import annotations

import pytest
import torch

from fgvc_cli.benchmarking.rows import reason
from fgvc_cli.errors import UsageError

CUDA = (
    "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 79.11 GiB of which 1.2 GiB is free."
)
CPU = "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate"


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (
            torch.OutOfMemoryError(CUDA),
            "out of memory with batches of 64 images of 448 px: 2.50 GiB more were asked for (try a smaller "
            "--batch-size)",
        ),
        (
            RuntimeError(f"{CPU} 40000000000 bytes. Error code 12"),
            "out of memory with batches of 64 images of 448 px: 40 GB more were asked for (try a smaller --batch-size)",
        ),
        (MemoryError(), "out of memory with batches of 64 images of 448 px (try a smaller --batch-size)"),
        (
            RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
            "out of memory with batches of 64 images of 448 px (try a smaller --batch-size)",
        ),
        (UsageError("head x needs\n3 maps."), "head x needs 3 maps."),
        (ValueError("shapes\n  differ"), "ValueError: shapes differ"),
    ],
)
def test_a_reason_is_one_line_that_says_what_was_wrong(error, says):
    assert reason(error, 64, 448) == says


def test_the_words_of_torch_itself_are_read():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**56, dtype=torch.uint8)
    assert reason(caught.value, 8, 64) == (
        "out of memory with batches of 8 images of 64 px: 72058 TB more were asked for (try a smaller --batch-size)"
    )


def test_a_model_that_cannot_be_compiled_is_told_as_such():
    error = torch._dynamo.exc.BackendCompilerFailed(lambda: None, RuntimeError("no C++ compiler"), None)
    assert reason(error, 8, 64).startswith("--compile failed: BackendCompilerFailed: ")
