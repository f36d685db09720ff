"""Peak memory, and the largest batch that fits."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fgvc_cli.errors import FgvcError


class PeakMemory(TorchDispatchMode):
    """Follows which storages are alive while work is done inside of it; for devices that keep no such statistics.

    A storage counts from the operation that makes it until nothing holds it any more: Python, the graph of the
    backward pass, an optimizer. Views take nothing. What a kernel needs only while it runs is not seen.

    Args:
        device: whose storages count.
        alive: tensors that are there already: weights, gradients, the optimizer's state, images.

    Attributes:
        bytes: taken now.
        peak: taken at the worst moment so far.
    """

    def __init__(self, device: torch.device, alive: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.device = device
        self.bytes = self.peak = 0
        self._storages: dict[int, weakref.ref[Any]] = {}
        for tensor in alive:
            self._see(tensor)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Execute an operation and look at what it made."""
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, Tensor):
                self._see(tensor)
        return out

    def _see(self, tensor: Tensor) -> None:
        if tensor.device.type != self.device.type:
            return
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._storages:
            return

        def gone(_: object) -> None:
            self.bytes -= size
            del self._storages[key]

        self._storages[key] = weakref.ref(storage, gone)
        self.bytes += size
        self.peak = max(self.peak, self.bytes)


class DevicePeak:
    """The peak of a CUDA GPU's allocator between `begin` and `end`; None on other devices."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def begin(self) -> None:
        """Forget earlier peaks; what is taken now counts on."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def end(self) -> int | None:
        """Return the bytes taken at the worst moment since `begin`."""
        return torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else None


def tensors_in(state: Any) -> list[Tensor]:
    """Return the tensors in nested dicts and lists, such as an optimizer's state."""
    if isinstance(state, Tensor):
        return [state]
    if isinstance(state, Mapping):
        state = list(state.values())
    return [tensor for value in state for tensor in tensors_in(value)] if isinstance(state, tuple | list) else []


STEP = 8
"""Batches are multiples of it, as a GPU's matrix units like them."""
MOST = 2**16


def largest_batch(fits: Callable[[int], bool], step: int = STEP, most: int = MOST) -> int:
    """Return the largest multiple of `step` up to `most` that fits, if whatever is smaller than a fit fits too.

    It doubles until one does not fit, then halves the interval between the last that did and the first that did not.

    Args:
        fits: tries a number of images.
        step: what the result is a multiple of, and the first number tried.
        most: tried, at most.

    Raises:
        FgvcError: not even `step` images fit.
    """
    good, bad = 0, step
    while bad <= most and fits(bad):
        good, bad = bad, 2 * bad
    bad = min(bad, most // step * step + step)  # what lies beyond `most` counts as too many
    while bad - good > step:
        middle = (good + bad) // 2 // step * step
        if fits(middle):
            good = middle
        else:
            bad = middle
    if not good:
        raise FgvcError(f"Out of memory: not even batches of {step} images fit. Try a smaller --image-size.")
    return good
