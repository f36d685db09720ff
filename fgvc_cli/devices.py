"""Devices, precision, compilation and loader workers."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from fgvc_cli.errors import UsageError, did_you_mean
from fgvc_cli.launch import usable_cores

Precision = Literal["fp32", "bf16"]

BF16_GAIN = 0.9
"""On a CPU bf16 is chosen if it takes at most this fraction of fp32's time; a smaller gain may be noise."""

MAX_GRAPHS = 64
"""Maximum number of compiled graphs of a model. A head with five objectives needs one for each part that it evaluates,
again for batches of another size, and again for evaluation; beyond torch's limit of 8 the rest would run uncompiled."""


def pick_device(wanted: str) -> torch.device:
    """Return the device called "auto", "cpu", "cuda", "cuda:1" or "mps"; prepare this process to compute on a CPU.

    Raises:
        UsageError: this machine has no such device.
    """
    if wanted == "auto":
        best = "mps" if torch.backends.mps.is_available() else "cpu"
        wanted = "cuda" if torch.cuda.is_available() else best
    try:
        device = torch.device(wanted)
    except RuntimeError:
        raise UsageError(f"`device={wanted}`: unknown device; use auto, cpu, cuda, cuda:N or mps") from None
    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not available.get(device.type, False):
        raise UsageError(f"`device={wanted}`: this machine has no such device; use `device=auto` or `device=cpu`")
    if device.type == "cpu":
        reuse_freed_memory()
        respect_quota()
    return device


M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Parameters of glibc's `mallopt`."""


def reuse_freed_memory() -> None:
    """Let this process keep the memory that it frees, where glibc allocates it.

    By default glibc returns large blocks, such as the activations of a batch, to the kernel, which clears them page by
    page when the next batch allocates them again: docs/performance.md says what that costs.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)  # large blocks come from the heap,
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)  # which does not shrink


def respect_quota() -> None:
    """Compute with no more threads than a container's CPU quota allows, unless the number of threads is given.

    torch starts a thread for each core that it sees. Threads beyond the quota stop all of them for most of the time.
    """
    if "OMP_NUM_THREADS" not in os.environ and torch.get_num_threads() > usable_cores():
        torch.set_num_threads(usable_cores())


BUSY_SAMPLES, BUSY_SECONDS = 10, 0.01
"""Samples of the number of running threads, and time between two of them."""


def busy_cores() -> float | None:
    """Return how many cores other threads of this machine keep busy at the moment; None if it does not say."""
    try:
        running = []
        for _ in range(BUSY_SAMPLES):
            running.append(int(Path("/proc/loadavg").read_text().split()[3].partition("/")[0]))
            time.sleep(BUSY_SECONDS)
    except (OSError, IndexError, ValueError):
        return None
    return max(0.0, sum(running) / len(running) - 1)  # without this thread


def note_on_threads(threads: int, cores: int, busy: float | None) -> str:
    """Return a line if several threads would wait for cores that other programs use; "" otherwise."""
    free = cores - (busy or 0)
    if threads < 2 or threads < free + 0.5:
        return ""
    fewer = max(1, round(free))
    return (
        f"{threads} threads train, but other programs keep about {min(cores, round(busy or 0))} of {cores} cores busy: "
        f"updates may be several times slower. Stop them, or set OMP_NUM_THREADS={fewer}"
    )


@cache
def processor() -> str:
    """Return the name of the processor, with what its bf16 arithmetic depends on."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}{', AMX' * _has_amx()}"


@cache
def has_bf16_units() -> bool:
    """Return whether the processor multiplies in bf16: with AMX, AVX-512 or NEON; elsewhere bf16 is emulated."""
    asked = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    if _has_amx() or (asked is not None and asked()):
        return True
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return platform.machine() in ("aarch64", "arm64") and supported is not None and bool(supported())


def _has_amx() -> bool:
    asked = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return asked is not None and bool(asked())


def resolve_precision(wanted: str, device: torch.device) -> Precision:
    """Resolve "auto" to "bf16" on a GPU that supports it, and to "fp32" elsewhere; other values are checked.

    On a CPU, a training may find that bf16 is faster (`fgvc_cli.training.precision`).

    Raises:
        UsageError: the GPU does not support bf16, or the value is unknown.
    """
    has_bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    if wanted == "auto":
        return "bf16" if has_bf16 else "fp32"
    if wanted == "bf16" and device.type == "cuda" and not has_bf16:
        raise UsageError("`precision=bf16`: this GPU does not support bf16; use `precision=fp32`")
    if wanted == "fp32":
        return "fp32"
    if wanted == "bf16":
        return "bf16"
    hint = did_you_mean(wanted, ("auto", "fp32", "bf16"))
    raise UsageError(f"`precision={wanted}`: use auto, fp32 or bf16{hint and '.' + hint}")


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Return the context for a forward pass in a precision."""
    if precision == "bf16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()


def compile_in_place(model: nn.Module, backend: str = "inductor") -> None:
    """Compile a model on its first call; the names of its weights do not change."""
    limits = torch._dynamo.config
    limits.recompile_limit = max(limits.recompile_limit, MAX_GRAPHS)
    model.compile(backend=backend)


def loader_workers(wanted: int, device: torch.device, sharing: int = 1) -> int:
    """Return the number of loader processes: as requested, or by device for -1.

    On the CPU the model needs every core, so there are none. `sharing` is the number of processes that train on this
    machine.

    Raises:
        UsageError: the number is below -1.
    """
    if wanted < -1:
        raise UsageError(f"`workers={wanted}` must be at least -1")
    if wanted >= 0:
        return wanted
    return min(12, max(1, usable_cores() // sharing - 1)) if device.type == "cuda" else 0


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that memory ran out, on the device or the host."""
    words = ("can't allocate memory", "not enough memory", "out of memory", "alloc_failed")  # the last: cuDNN, cuBLAS
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(w in str(error).lower() for w in words)
    )


def is_compile_error(error: BaseException) -> bool:
    """Return whether an error comes from torch.compile."""
    return type(error).__module__.startswith(("torch._dynamo", "torch._inductor"))


def describe_device(device: torch.device) -> str:
    """Return the name of a device for the user."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} ({torch.get_num_threads()} threads)" if device.type == "cpu" else device.type
