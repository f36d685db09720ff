"""Peak memory, and the largest batch that fits."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fgvc_cli.errors import FgvcError


class PeakMemory(TorchDispatchMode):
    """Tracks the storages that are alive within the block, for devices without allocator statistics.

    A storage counts from the operation that creates it until nothing refers to it: Python, the autograd graph, an
    optimizer. Views cost nothing. Temporary buffers within a kernel are not seen.

    Args:
        device: whose storages count.
        alive: tensors that exist already: weights, gradients, optimizer state, images.

    Attributes:
        bytes: in use now.
        peak: largest number of bytes in use so far.
    """

    def __init__(self, device: torch.device, alive: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.device = device
        self.bytes = self.peak = 0
        self._storages: dict[int, weakref.ref[Any]] = {}
        for tensor in alive:
            self._track(tensor)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Execute an operation and track its outputs."""
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, Tensor):
                self._track(tensor)
        return out

    def _track(self, tensor: Tensor) -> None:
        if tensor.device.type != self.device.type:
            return
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._storages:
            return

        def freed(_: object) -> None:
            self.bytes -= size
            del self._storages[key]

        self._storages[key] = weakref.ref(storage, freed)
        self.bytes += size
        self.peak = max(self.peak, self.bytes)


STEP = 8
"""Batch sizes are multiples of it, which suits the matrix units of GPUs."""
MAX_BATCH = 2**16


def largest_batch(fits: Callable[[int], bool], step: int = STEP, limit: int = MAX_BATCH) -> int:
    """Return the largest multiple of `step` up to `limit` that fits, assuming that smaller batches fit too.

    Doubles until one does not fit, then bisects.

    Args:
        fits: tries a batch size.
        step: what the result is a multiple of; tried first.
        limit: largest batch size tried.

    Raises:
        FgvcError: not even `step` images fit.
    """
    good, bad = 0, step
    while bad <= limit and fits(bad):
        good, bad = bad, 2 * bad
    bad = min(bad, limit // step * step + step)
    while bad - good > step:
        middle = (good + bad) // 2 // step * step
        if fits(middle):
            good = middle
        else:
            bad = middle
    if not good:
        raise FgvcError(f"Out of memory even with batches of {step} images: try a smaller `image_size`")
    return good
