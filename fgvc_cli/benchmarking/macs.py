"""Count multiply-accumulate operations (MACs)."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any, Self

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

aten = torch.ops.aten


class MacCounter(TorchDispatchMode):
    """Counts the MACs that are executed within the block, backward passes included.

    Uses the formulas of torch's `FlopCounterMode` (which counts a MAC as two FLOPs) with two exceptions. For the weight
    gradient of a grouped convolution torch connects every input channel to every output channel, which counts `groups`
    times too much. And attention is counted whichever kernel computes it; torch's layers (`nn.MultiheadAttention`) run
    without the fast path that hides the whole layer in inference. Elementwise operations, reductions and norms are not
    counted.

    Attributes:
        total: MACs so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0
        self._fastpath: list[bool] = []

    def __enter__(self) -> Self:
        self._fastpath.append(torch.backends.mha.get_fastpath_enabled())
        torch.backends.mha.set_fastpath_enabled(False)
        return super().__enter__()

    def __exit__(self, *raised: Any) -> None:
        super().__exit__(*raised)
        torch.backends.mha.set_fastpath_enabled(self._fastpath.pop())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Execute an operation and count it."""
        kwargs = kwargs or {}
        packet = getattr(func, "overloadpacket", func)
        own, known = OWN_FORMULAS.get(packet), flop_registry.get(packet)
        if own is None and known is None and isinstance(func, torch._ops.OpOverload):
            with self:  # in inference mode composite operations, such as a linear layer, are not decomposed
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        out = func(*args, **kwargs)
        if own is not None:
            self.total += own(*args, **kwargs)
        elif known is not None:
            self.total += known(*args, **kwargs, out_val=out) // 2
        return out


def count_macs(work: Callable[[], object]) -> int:
    """Run some work and return the number of MACs."""
    with MacCounter() as counter:
        work()
    return counter.total


def _convolution_backward(
    grad: Tensor, inputs: Tensor, weight: Tensor, *others: Any, output_mask: Any = None, **_: Any
) -> int:
    """Count each requested gradient as many MACs as the forward pass.

    Every product of an input (if transposed, output) element and a weight recurs in the gradient of either.
    """
    transposed = bool(others[4])
    mask = output_mask if output_mask is not None else others[7]
    points = prod(inputs.shape[2:]) if transposed else prod(grad.shape[2:])
    forward = len(inputs) * points * weight.numel()  # each weight is used once per point and image
    return forward * sum(map(bool, mask[:2]))


def _attention(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    """Count the products of queries and keys, and of scores and values."""
    *batch, rows, width = query.shape  # ..., heads, L, D
    return prod(batch) * rows * key.shape[-2] * (width + value.shape[-1])


def _attention_backward(_: Tensor, query: Tensor, key: Tensor, value: Tensor, *__: Any, **___: Any) -> int:
    """Count the recomputed scores (no kernel keeps them) and the gradients of both factors of both products."""
    *batch, rows, width = query.shape
    return prod(batch) * rows * key.shape[-2] * (3 * width + 2 * value.shape[-1])


def _formulas() -> dict[Any, Callable[..., int]]:
    """Return the formulas by operation, for the operations that this torch has."""
    found: dict[Any, Callable[..., int]] = {aten.convolution_backward: _convolution_backward}
    kernels = ("flash_attention", "flash_attention_for_cpu", "efficient_attention", "cudnn_attention")
    for kernel in (*kernels, "fused_attention_overrideable", "attention_math_for_mps"):
        for name, formula in ((kernel, _attention), (f"{kernel}_backward", _attention_backward)):
            packet = getattr(aten, f"_scaled_dot_product_{name}", None)
            if packet is not None:
                found[packet] = formula
    return found


OWN_FORMULAS = _formulas()
"""Formulas that replace torch's, by operation."""
